import * as fs from "node:fs";
import { MountClient } from "../../src/filesystem/mount-client.ts";
import { mountFuse } from "../../src/fuse/mount.ts";
import { errorCode } from "../../src/lib/errors.ts";
import { silentLogger } from "../../src/lib/log.ts";

/** Mounts, then ends in the way that the test names: none of them may leave the process hanging. */
const [how = "", directory = ""] = process.argv.slice(2);
const mountPoint = `${directory}/mnt`;
fs.mkdirSync(mountPoint, { recursive: true });
const client = new MountClient({
  dataDirectory: `${directory}/data`,
  wasClean: false,
  nodeId: 1n,
  role: { isPrimary: true, primaryHostname: undefined, phase: "primary" },
  spinMs: 0.1,
  idlePolling: "off",
  locks: process.env["LITEFS_TEST_LOCKS"] === "kernel" ? "kernel" : "daemon",
  logger: silentLogger,
  log: { format: "text", timestamp: false, debug: false },
  keepAside: { maxCount: 4, maxBytes: 0 },
  onFatal: () => process.exit(99),
});
process.on("exit", () => client.requestStop());
await client.open();
// As of another node, to whose loan this one was the primary: its port is open before the mount is.
const early = how.startsWith("early") ? client.endLoan("app.db", "1") : undefined;
if (how === "early and stop") {
  client.requestStop();
  const code = await early?.then(
    () => "",
    (error: unknown) => errorCode(error),
  );
  fs.writeSync(1, "not mounted\n");
  process.exit(code === "STOPPING" ? 4 : 1);
}
const mount = await mountFuse({ directory: mountPoint, fsname: "litefs", allowOther: false });
await client.serve(mount.fd, mount.mountPoint);
fs.writeSync(1, "mounted\n");
if (early !== undefined) {
  await early;
  process.exit(3);
}

if (how === "process.exit") process.exit(7);
if (how === "throw") {
  setImmediate(() => {
    throw new Error("nobody catches this");
  });
}
if (how === "reject") void Promise.reject(new Error("nobody catches this"));
if (how === "aborted") {
  void client.ended.then(() => process.exit(5));
  await mount.abort();
}
setInterval(() => undefined, 1000);
