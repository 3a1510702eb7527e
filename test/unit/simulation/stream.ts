import { applyLtxFile } from "../../../src/database/apply-file.ts";
import { applyTransactions } from "../../../src/database/apply.ts";
import type { ApplyResult, LogRead } from "../../../src/database/engine.ts";
import { Snapshot } from "../../../src/database/snapshot.ts";
import { errorCode } from "../../../src/lib/errors.ts";
import type { Position } from "../../../src/lib/position.ts";
import { positionsEqual, ZERO_POSITION } from "../../../src/lib/position.ts";
import { halvesToBigint } from "../../../src/ltx/crc64.ts";
import { encodeLtx } from "../../../src/ltx/encode-ltx.ts";
import type { LtxPage } from "../../../src/ltx/encode-ltx.ts";
import type { Random } from "../database/support/fake-disk.ts";
import { Violation } from "./oracle.ts";
import type { SimDatabase, SimNode } from "./sim-node.ts";

/** What has left the primary and is not applied yet. */
type Batch =
  | { readonly kind: "transactions"; readonly ltx: readonly Uint8Array[] }
  | { readonly kind: "snapshot"; readonly ltx: Uint8Array };

/**
 * One database on its way from the primary to one replica, by the same decisions as the stream of
 * `cluster/replication`: the log if it continues what the replica has, a snapshot if not.
 */
export class SimStream {
  readonly name: string;
  readonly replica: SimNode;
  /** What the replica will have when all of the queue is applied; undefined: ask it. */
  #sent: Position | undefined;
  #queue: Batch[] = [];
  #snapshot: Snapshot | undefined;

  constructor(name: string, replica: SimNode) {
    this.name = name;
    this.replica = replica;
  }

  /** The connection is gone; what was received may still be applied. */
  disconnect(keepsQueue: boolean): void {
    this.#sent = undefined;
    if (!keepsQueue) this.#queue = [];
  }

  /** The primary's process is gone, and with it the snapshot that it was sending. */
  forgetSource(): void {
    this.#snapshot = undefined;
  }

  closeSnapshot(): void {
    const snapshot = this.#snapshot;
    this.#snapshot = undefined;
    snapshot?.close();
  }

  get pending(): number {
    return this.#queue.length;
  }

  /** The primary reads its log and sends, or goes on with a snapshot. Returns what it did. */
  send(source: SimDatabase, random: Random): string {
    if (source.db.status === "quarantined") return "quarantined";
    if (this.#snapshot !== undefined) return this.#sendSnapshot(this.#snapshot);
    const client = this.#sent ?? this.#positionOfReplica();
    if (client === undefined) return "not connected";
    this.#sent = client;
    const { position } = source.db;
    if (positionsEqual(client, position)) return "up to date";
    const maxBytes = random.chance(0.5) ? 1 : 100_000;
    const end = { ...source.db.log.end, position };
    const read: LogRead =
      client.txid === 0 ? { kind: "unavailable" } : source.reader.read(client, end, maxBytes);
    if (read.kind === "transactions") {
      this.#queue.push({ kind: "transactions", ltx: read.ltx.map((bytes) => bytes.slice()) });
      this.#sent = read.end;
      return `${read.ltx.length} to ${read.end.txid}`;
    }
    if (read.kind === "large") {
      this.#queue.push({ kind: "transactions", ltx: [read.ltx.read(0, read.ltx.lengthBytes)] });
      this.#sent = read.end;
      return `a large one to ${read.end.txid}`;
    }
    if (position.txid === 0) return "nothing to send";
    if (source.db.hasOpenChanges) return "busy";
    const { log, store, files } = source.db;
    const { txid, checksumHi, checksumLo, state } = log;
    const at = { txid, checksumHi, checksumLo, timestampMs: state.timestampMs };
    const side = files.pathOf(`snapshot-${1 + random.below(1e6)}.side`);
    this.#snapshot = new Snapshot(store, at, side);
    return `snapshot of ${txid} begun`;
  }

  #positionOfReplica(): Position | undefined {
    if (!this.replica.isUp) return undefined;
    const target = this.replica.databases.get(this.name);
    if (target === undefined || target.db.status === "quarantined") return ZERO_POSITION;
    return target.db.position;
  }

  #sendSnapshot(snapshot: Snapshot): string {
    const pages: LtxPage[] = [];
    try {
      for (let part = snapshot.next(); part !== undefined; part = snapshot.next()) {
        const { data } = part;
        for (const [i, pgno] of part.pgnos.entries()) {
          pages.push({
            pgno,
            data: data.slice(i * snapshot.pageSize, (i + 1) * snapshot.pageSize),
          });
        }
      }
    } catch (error) {
      this.closeSnapshot();
      if (errorCode(error) !== "SNAPSHOT_ABANDONED") throw error;
      return "snapshot abandoned";
    }
    const checksum = halvesToBigint(snapshot.checksumHi, snapshot.checksumLo);
    const header = {
      flags: 0,
      pageSize: snapshot.pageSize === 0 ? 4096 : snapshot.pageSize,
      commit: snapshot.pageCount,
      minTxid: 1,
      maxTxid: snapshot.txid,
      timestampMs: snapshot.timestampMs,
      preApplyChecksum: 0n,
      walOffset: 0,
      walSize: 0,
      walSalt1: 0,
      walSalt2: 0,
      nodeId: 1n,
    };
    // Throws when the pages do not have that checksum.
    this.#queue.push({ kind: "snapshot", ltx: encodeLtx(header, pages, checksum) });
    this.#sent = { txid: snapshot.txid, checksum };
    this.closeSnapshot();
    return `snapshot of ${header.maxTxid}`;
  }

  /** The replica applies what has arrived. `applied` is called when it has. */
  deliver(applied: (at: SimDatabase, result: ApplyResult) => void): string {
    const { replica, name } = this;
    const target = replica.open(name);
    if (target.isBusy) return "busy";
    const batch = this.#queue.shift();
    if (batch === undefined) return "nothing arrived";
    const done = (result: ApplyResult): void => {
      if (result.kind !== "applied") this.disconnect(false);
      replica.releaseFiles(target);
      applied(target, result);
    };
    const { db, local, locks } = target;
    if (batch.kind === "transactions") {
      replica.run(target, applyTransactions(db, local, locks, batch.ltx), done);
      return `${batch.ltx.length} transactions`;
    }
    const abandoned = db.status === "quarantined" ? 0 : db.position.txid;
    const path = db.files.pathOf("snapshot.ltx.tmp");
    replica.disk.remove(path);
    const file = replica.disk.open(path, { create: true });
    file?.writeAt(batch.ltx, 0, batch.ltx.length, 0);
    file?.close();
    replica.run(target, applyLtxFile(db, local, locks, path), (result) => {
      const kept = replica.disk.list(db.files.pathOf("diverged"));
      const ending = `-${abandoned.toString(16)}`;
      if (abandoned > 0 && !kept.some((history) => history.endsWith(ending))) {
        throw new Violation(`${replica.name} has thrown the history to ${abandoned} away`);
      }
      done(result);
    });
    return "a snapshot";
  }
}
