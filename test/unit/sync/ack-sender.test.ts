import { expect, test } from "vitest";
import { AckSender } from "../../../src/cluster/sync/ack-sender.ts";
import { announcedDatabases } from "../../../src/cluster/sync/announced-databases.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import type { Position } from "../../../src/lib/position.ts";
import { AcknowledgementParser } from "../../../src/wire/acknowledgement.ts";

const at = (txid: number): Position => ({ txid, checksum: 0x8000000000000000n + BigInt(txid) });

interface Setup {
  /** Databases that the engine knows. */
  readonly known: string[];
  readonly openChannel?: () => never;
}

function setUp({ known, openChannel }: Setup) {
  const announced = announcedDatabases("*");
  if (announced === undefined) throw new Error("nothing is announced");
  const warnings: string[] = [];
  const told: string[] = [];
  const parser = new AcknowledgementParser();
  const write = (bytes: Uint8Array): void => {
    for (const { name, position } of parser.push(bytes)) told.push(`${name} ${position.txid}`);
  };
  const sender = new AckSender({
    announced,
    log: { ...silentLogger, warn: (message) => void warnings.push(message) },
    databases: () => known,
    makeDurable: () => Promise.resolve(at(7)),
    openChannel: openChannel ?? (() => ({ write })),
  });
  return { sender, told, warnings };
}

test("what was applied before the channel is open is told, also when the engine does not list it yet", async () => {
  const { sender, told } = setUp({ known: ["a.db"] });
  sender.applied("new.db", at(7));
  await sender.open();
  expect(told).toEqual(["a.db 7", "new.db 7"]);
  sender.applied("new.db", at(8));
  expect(told.at(-1)).toBe("new.db 8");
});

test("a connection that is gone when the channel is to be opened is no error of this node", async () => {
  const { sender, warnings } = setUp({
    known: ["a.db"],
    openChannel: () => {
      throw new Error("The session has been destroyed");
    },
  });
  await sender.open();
  expect(warnings).toHaveLength(1);
  sender.applied("a.db", at(8));
});
