import * as fs from "node:fs";
import * as os from "node:os";
import { expect, test } from "vitest";
import { allowsSpinning } from "../../src/fuse/spare-processors.ts";
import { cleanUpAfterEach, Cluster } from "../support/cluster.ts";

cleanUpAfterEach();

const DEVICE = "/dev/cpu_dma_latency";

/** What all processes of the machine together ask for, in microseconds; undefined: it cannot be told. */
function wishUs(): number | undefined {
  try {
    return fs.readFileSync(DEVICE).readInt32LE(0);
  } catch {
    // Not in every container.
    return undefined;
  }
}

test("processors are kept from being halted while applications are busy, and only then", async ({
  skip,
}) => {
  const before = wishUs();
  if (before === undefined || before === 0) return skip();
  if (!allowsSpinning() || os.cpus().length > 8) return skip();
  const cluster = await Cluster.start({ replicas: 0 });
  const db = cluster.connect(cluster.primary, "app.db");
  db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; CREATE TABLE t (x)");
  await expect.poll(wishUs, { timeout: 10_000 }).toBe(before);
  const insert = db.prepare("INSERT INTO t VALUES (zeroblob(1000))");
  const end = Date.now() + 10_000;
  let busy = before;
  while (busy !== 0 && Date.now() < end) {
    for (let i = 0; i < 500; i++) insert.run();
    busy = wishUs() ?? busy;
  }
  expect(busy).toBe(0);
  await expect.poll(wishUs, { timeout: 10_000 }).toBe(before);
  // With the process goes what it has asked for.
  for (let i = 0; i < 500; i++) insert.run();
  cluster.closeConnections();
  await cluster.primary.kill();
  await expect.poll(wishUs, { timeout: 10_000 }).toBe(before);
});

test("it can be turned off", async ({ skip }) => {
  const before = wishUs();
  if (before === undefined || before === 0) return skip();
  const cluster = await Cluster.create({ replicas: 0 });
  const { primary } = cluster;
  primary.writeConfig();
  const config = fs.readFileSync(primary.configPath, "utf8");
  primary.writeConfig = () => {
    fs.writeFileSync(primary.configPath, config.replace("fuse: {", "fuse: {idle-polling: off, "));
  };
  await primary.start();
  const db = cluster.connect(primary, "app.db");
  db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; CREATE TABLE t (x)");
  const insert = db.prepare("INSERT INTO t VALUES (zeroblob(1000))");
  for (let round = 0; round < 5; round++) {
    for (let i = 0; i < 300; i++) insert.run();
    expect(wishUs()).toBe(before);
  }
});
