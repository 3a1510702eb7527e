import { expect, it } from "vitest";
import { keepAside, limitKept } from "../../../src/database/keep-aside.ts";
import { FakeDisk } from "./support/fake-disk.ts";
import { FakeHost, open } from "./support/harness.ts";

const DIRECTORY = "/data/dbs/app.db";

/** Three copies of 100, 200 and 300 bytes, the last the newest, and things that are none. */
function kept(): FakeDisk {
  const disk = new FakeDisk();
  disk.put(`${DIRECTORY}/diverged/000000000000001-1/log/0000000000000001.seg`, new Uint8Array(100));
  disk.put(`${DIRECTORY}/quarantine/000000000000002-a/database`, new Uint8Array(150));
  disk.put(
    `${DIRECTORY}/quarantine/000000000000002-a/log/0000000000000001.seg`,
    new Uint8Array(50),
  );
  disk.put(`${DIRECTORY}/diverged/000000000000003-f/log/0000000000000001.seg`, new Uint8Array(300));
  disk.put(`${DIRECTORY}/diverged/notes.txt`, new Uint8Array(1000));
  disk.put(`${DIRECTORY}/database`, new Uint8Array(1000));
  return disk;
}

function names(disk: FakeDisk): string[] {
  return ["diverged", "quarantine"].flatMap((folder) => disk.list(`${DIRECTORY}/${folder}`)).sort();
}

it.each([
  [4, 0, ["000000000000001-1", "000000000000002-a", "000000000000003-f", "notes.txt"]],
  [2, 0, ["000000000000002-a", "000000000000003-f", "notes.txt"]],
  [0, 0, ["000000000000003-f", "notes.txt"]],
  [4, 500, ["000000000000002-a", "000000000000003-f", "notes.txt"]],
  [4, 499, ["000000000000003-f", "notes.txt"]],
  [4, 1, ["000000000000003-f", "notes.txt"]],
])("with at most %d copies and %d bytes the oldest go", (maxCount, maxBytes, left) => {
  const disk = kept();
  limitKept(disk, DIRECTORY, { maxCount, maxBytes });
  expect(names(disk)).toEqual(left);
  expect(disk.size(`${DIRECTORY}/database`)).toBe(1000);
});

it("what is kept after the clock was set back is the newest all the same", () => {
  const disk = kept();
  const host = new FakeHost();
  const db = open(disk, host);
  host.nowMs = () => 2;
  const newest = keepAside(db, "diverged", ["log"]);
  expect(newest).toBe(`${DIRECTORY}/diverged/000000000000004-0`);
  limitKept(disk, DIRECTORY, { maxCount: 1, maxBytes: 0 });
  expect(names(disk)).toEqual(["000000000000004-0", "notes.txt"]);
});
