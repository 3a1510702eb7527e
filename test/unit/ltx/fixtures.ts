import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** Bytes that a real LiteFS 0.5.14 wrote; see the README there. */
export const FIXTURES: string = join(import.meta.dirname, "../../fixtures/litefs-0.5.14");

export interface FixtureTransaction {
  readonly txid: string;
  readonly file: string;
  readonly size: number;
  readonly flags: number;
  readonly pageSize: number;
  readonly commit: number;
  readonly timestamp: number;
  readonly preApplyChecksum: string;
  readonly postApplyChecksum: string;
  readonly fileChecksum: string;
  readonly walOffset: number;
  readonly walSize: number;
  readonly walSalt1: number;
  readonly walSalt2: number;
  readonly nodeID: string;
  readonly pageCount: number;
  readonly pages?: readonly number[];
  readonly pageRanges?: readonly (readonly [number, number])[];
  readonly databaseSize?: number;
  readonly databaseSha256?: string;
}

export interface FixtureChain {
  readonly end: { readonly postApplyChecksum: string; readonly exportSha256: string };
  readonly transactions: readonly FixtureTransaction[];
}

export function readFixture(...path: string[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(readFileSync(join(FIXTURES, ...path)));
}

export function readFixtureText(...path: string[]): string {
  return readFileSync(join(FIXTURES, ...path), "utf8");
}

export function readChain(name: string): FixtureChain {
  return JSON.parse(readFixtureText(name, "expected.json"));
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
