import { expect, test } from "vitest";
import type { Config } from "../../../src/config/config.ts";
import { parseConfig } from "../../../src/config/parse.ts";
import { OPTIONS } from "../../../src/config/schema.ts";

/** Checked against the type by the compiler and against the table by the test below. */
const DEFAULTS: Config = {
  exitOnError: true,
  skipSync: false,
  strictVerify: false,
  exec: [],
  data: {
    dir: "/var/lib/litefs",
    compress: true,
    retentionMs: 600_000,
    retentionMonitorIntervalMs: 60_000,
    verify: "unclean",
    verifyIntervalMs: 0,
    verifyRateMegabytes: 16,
    keptCopies: 4,
    keptCopiesMaxSizeMegabytes: 10240,
  },
  fuse: {
    dir: "/litefs",
    allowOther: false,
    debug: false,
    locks: "daemon",
    spinMs: 0.1,
    idlePolling: "auto",
  },
  http: { addr: ":20202", snapshotTimeoutMs: 0 },
  proxy: {
    addr: "",
    target: "",
    db: "",
    maxLagMs: 10_000,
    debug: false,
    passthrough: [],
    alwaysForward: [],
    primaryRedirectTimeoutMs: 5000,
    readTimeoutMs: 0,
    readHeaderTimeoutMs: 10_000,
    writeTimeoutMs: 0,
    idleTimeoutMs: 30_000,
  },
  forward: { enabled: true, lingerMs: 1000, timeoutMs: 5000 },
  sync: { replicas: 0, databases: {}, nodes: 0, timeoutMs: 3000, onTimeout: "refuse" },
  lease: {
    type: "",
    hostname: "",
    advertiseUrl: "",
    candidate: true,
    promote: false,
    reconnectDelayMs: 1000,
    demoteDelayMs: 10_000,
    databases: [],
    consul: { url: "", key: "", ttlMs: 10_000, lockDelayMs: 1000 },
    etcd: {
      endpoints: [],
      key: "",
      ttlMs: 10_000,
      username: "",
      password: "",
      caFile: "",
      certFile: "",
      keyFile: "",
    },
  },
  backup: { type: "", path: "", url: "https://litefs.fly.io", cluster: "", authToken: "" },
  log: { format: "text", timestamp: false, debug: false },
  tracing: { enabled: true, path: "", maxSizeMegabytes: 64, maxCount: 8, compress: true },
};

test("the table of options and the type of the configuration agree", () => {
  expect(parseConfig("", "litefs.yml").config).toStrictEqual(DEFAULTS);
});

test("each option is there once and means something", () => {
  const keys = OPTIONS.map((option) => option.key);
  expect(new Set(keys).size).toBe(keys.length);
  for (const option of OPTIONS) {
    expect(option.meaning, option.key).toMatch(/^[A-Z].{5,}\.$/);
    expect(option.choices !== undefined, option.key).toBe(option.kind === "choice");
  }
});
