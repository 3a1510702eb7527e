import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { nodeFiles } from "../../../src/database/files.ts";
import { DatabaseDirectory } from "../../../src/filesystem/database-directory.ts";
import type { LogFields } from "../../../src/lib/log.ts";
import { FakeHost, silentLogger } from "../database/support/node.ts";

let dataDirectory: string;
beforeEach(() => {
  dataDirectory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-directory-"));
});
afterEach(() => {
  fs.rmSync(dataDirectory, { recursive: true, force: true });
});

/** Every look at its clock takes a second. */
class SlowHost extends FakeHost {
  readonly told: [string, LogFields | undefined][] = [];
  constructor() {
    super();
    this.logger = {
      ...silentLogger,
      info: (message, fields) => void this.told.push([message, fields]),
    };
  }
  override nowMs(): number {
    return (this.now += 1_000);
  }
}

describe("the databases found at a start", () => {
  it("are counted every few seconds while there are more of them", () => {
    for (let i = 10; i < 30; i++) {
      fs.mkdirSync(path.join(dataDirectory, "dbs", `${i}.db`), { recursive: true });
    }
    const host = new SlowHost();
    const found = [...new DatabaseDirectory(host, nodeFiles, dataDirectory).find(true)];
    expect(found).toHaveLength(20);
    const progress = host.told.filter(([message]) => message === "opening databases");
    expect(progress.length).toBeGreaterThan(1);
    expect(progress.length).toBeLessThan(10);
    expect(progress[0]?.[1]).toEqual({ done: expect.any(Number), count: 20 });
    expect(host.told.at(-1)).toEqual(["databases found", { count: 20, opened: 20 }]);
  });

  it("are not counted when there are few", () => {
    fs.mkdirSync(path.join(dataDirectory, "dbs", "a.db"), { recursive: true });
    const host = new SlowHost();
    expect([...new DatabaseDirectory(host, nodeFiles, dataDirectory).find(true)]).toHaveLength(1);
    expect(host.told).toEqual([["databases found", { count: 1, opened: 1 }]]);
  });
});
