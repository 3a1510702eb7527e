import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { nodeFiles, writeFileAtomically } from "../database/files.ts";
import { errorCode, LitefsError } from "../lib/errors.ts";

/**
 * The name of one cluster, kept in `<data>/clusterid`, so that a node can never be fed with the
 * transactions of another cluster: `LFSC`, 16 upper-case hex digits, newline.
 */
export class ClusterIdStore {
  readonly #file: string;
  #id: string | undefined;

  private constructor(file: string, id: string | undefined) {
    this.#file = file;
    this.#id = id;
  }

  /** Reads what is stored. A damaged file is an error and stays as it is: it may be the only clue. */
  static open(dataDirectory: string): ClusterIdStore {
    const file = path.join(dataDirectory, "clusterid");
    const text = readIfPresent(file);
    if (text === undefined) return new ClusterIdStore(file, undefined);
    const id = text.trimEnd();
    if (!isClusterId(id)) {
      throw new LitefsError(
        "CLUSTER_ID_DAMAGED",
        `${file} does not hold a cluster id (found ${JSON.stringify(text.slice(0, 40))}): restore it from another node of this cluster, or remove it to let this node adopt the id of the cluster it joins`,
      );
    }
    return new ClusterIdStore(file, id);
  }

  get current(): string | undefined {
    return this.#id;
  }

  /** The stored id, or a new one: only the primary of a new cluster may invent it. */
  ensure(random: (sizeBytes: number) => Uint8Array = randomBytes): string {
    if (this.#id !== undefined) return this.#id;
    const id = `LFSC${Buffer.from(random(8)).toString("hex").toUpperCase()}`;
    this.#store(id);
    return id;
  }

  /** Joins the cluster of a primary, or refuses when this node belongs to another one. */
  adopt(id: string): void {
    this.check(id);
    if (id !== this.#id) this.#store(id);
  }

  /** Throws when a primary's cluster is not the one of this node, which may still have none. */
  check(id: string): void {
    if (id === this.#id) return;
    if (!isClusterId(id)) {
      throw new LitefsError(
        "CLUSTER_ID_INVALID",
        `the primary sent an invalid cluster id ${JSON.stringify(id.slice(0, 40))}`,
      );
    }
    if (this.#id !== undefined) {
      throw new LitefsError(
        "CLUSTER_ID_MISMATCH",
        `the primary belongs to cluster ${id}, this node to ${this.#id}: point lease.advertise-url at the right primary, or start this node with an empty data.dir`,
      );
    }
  }

  #store(id: string): void {
    try {
      writeFileAtomically(nodeFiles, this.#file, Buffer.from(`${id}\n`));
    } catch (cause) {
      throw new LitefsError("CLUSTER_ID_UNWRITABLE", `cannot write ${this.#file}`, { cause });
    }
    this.#id = id;
  }
}

export function isClusterId(text: string): boolean {
  return /^LFSC[0-9A-F]{16}$/.test(text);
}

function readIfPresent(file: string): string | undefined {
  try {
    return fs.readFileSync(file, "latin1");
  } catch (cause) {
    if (errorCode(cause) === "ENOENT") return undefined;
    throw new LitefsError("CLUSTER_ID_UNREADABLE", `cannot read ${file}`, { cause });
  }
}
