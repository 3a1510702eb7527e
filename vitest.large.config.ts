import { defineConfig } from "vitest/config";

/** Databases of several gibibytes: minutes, and about 30 GB of disk. Not part of the other tests. */
export default defineConfig({
  test: {
    include: ["test/large/**/*.test.ts"],
    testTimeout: 60 * 60_000,
    fileParallelism: false,
  },
});
