import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    // As bin/litefs has it, see there.
    execArgv: ["--disable-warning=ExperimentalWarning"],
    projects: [
      {
        test: { name: "unit", include: ["test/unit/**/*.test.ts"], testTimeout: 30_000 },
      },
      {
        // Real mounts, real processes: one file at a time, because these machines have two cores.
        test: {
          name: "integration",
          include: ["test/integration/**/*.test.ts"],
          testTimeout: 120_000,
          hookTimeout: 60_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
