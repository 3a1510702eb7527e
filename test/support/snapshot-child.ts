import * as fs from "node:fs";
import { MountClient } from "../../src/filesystem/mount-client.ts";
import { mountFuse } from "../../src/fuse/mount.ts";
import { silentLogger } from "../../src/lib/log.ts";
import { startPython } from "./shell.ts";

/**
 * Mounts, and opens snapshots of a database while it is written as fast as possible. Prints how many
 * of them were of a transaction that the live view did not have yet.
 */
const SNAPSHOTS = 300;
const WRITER = `
db.execute("CREATE TABLE t(x)")
while True: db.execute("INSERT INTO t VALUES (1)")`;

const [directory = ""] = process.argv.slice(2);
const mountPoint = `${directory}/mnt`;
fs.mkdirSync(mountPoint, { recursive: true });
const client = new MountClient({
  dataDirectory: `${directory}/data`,
  wasClean: false,
  nodeId: 1n,
  role: { isPrimary: true, primaryHostname: undefined, phase: "primary" },
  spinMs: 0.1,
  idlePolling: "off",
  locks: "daemon",
  logger: silentLogger,
  log: { format: "text", timestamp: false, debug: false },
  keepAside: { maxCount: 4, maxBytes: 0 },
  onFatal: () => process.exit(99),
});
process.on("exit", () => client.requestStop());
await client.open();
const mount = await mountFuse({ directory: mountPoint, fsname: "litefs", allowOther: false });
await client.serve(mount.fd, mount.mountPoint);

const stop = new AbortController();
const writer = startPython(
  `${mountPoint}/app.db`,
  `db.execute("PRAGMA journal_mode=WAL")${WRITER}`,
  stop.signal,
);
while ((client.databases.get("app.db")?.position.txid ?? 0) < 3) {
  await new Promise((resolve) => setTimeout(resolve, 1));
}
let ahead = 0;
const first = client.databases.get("app.db")?.position.txid ?? 0;
for (let i = 0; i < SNAPSHOTS; i++) {
  const snapshot = await client.openSnapshot("app.db");
  if (snapshot.position.txid > (client.databases.get("app.db")?.position.txid ?? 0)) ahead++;
  await snapshot.close();
}
const last = client.databases.get("app.db")?.position.txid ?? 0;
stop.abort();
await writer;
process.stdout.write(`${JSON.stringify({ ahead, written: last - first })}\n`);
process.exit(0);
