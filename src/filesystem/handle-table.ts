import type { DatabaseFiles } from "../database/database-files.ts";
import type { Node } from "./nodes.ts";

/** A descriptor that an application, or several that share it, has open. */
export interface Handle {
  node: Node;
  /** What a virtual file held when it was opened. */
  readonly text: Uint8Array | undefined;
  /** It has changed a database file since the last time somebody asked. */
  wrote: boolean;
  /** This process has it open, not an application. */
  readonly isOwn: boolean;
}

/** Open handles by number; numbers are used again. */
export class HandleTable {
  readonly #handles: (Handle | undefined)[] = [];
  readonly #free: number[] = [];

  get(fh: number): Handle | undefined {
    return this.#handles[fh];
  }

  open(node: Node, isOwn = false): number {
    const text = node.type === "text" ? Buffer.from(node.content()) : undefined;
    if (node.type !== "text" && !isOwn) node.opens++;
    const handle: Handle = { node, text, wrote: false, isOwn };
    const fh = this.#free.pop() ?? this.#handles.length;
    this.#handles[fh] = handle;
    return fh;
  }

  close(fh: number): Handle | undefined {
    const handle = this.#handles[fh];
    this.#handles[fh] = undefined;
    this.#free.push(fh);
    if (handle !== undefined && handle.node.type !== "text" && !handle.isOwn) handle.node.opens--;
    return handle;
  }

  markWritten(fh: number): void {
    const handle = fh < 0 ? undefined : this.#handles[fh];
    if (handle !== undefined) handle.wrote = true;
  }

  /** The file behind these descriptors has changed sides. */
  rebind(old: Node, node: Node): void {
    for (const handle of this.#handles) if (handle?.node === old) handle.node = node;
  }

  /** Whether a file of these is open. */
  isOpen(files: DatabaseFiles): boolean {
    for (const handle of this.#handles) {
      if (handle?.node.type === "file" && handle.node.files === files) return true;
    }
    return false;
  }
}
