import * as http from "node:http";
import * as https from "node:https";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { errorCode, LitefsError } from "../lib/errors.ts";

export const DEFAULT_URL = "http://localhost:20202";

/** The part of GET /info that commands look at. */
export interface NodeInfo {
  readonly isPrimary: boolean;
  readonly candidate: boolean;
}

export interface NodeRequest {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: Readable;
}

/**
 * Speaks to the HTTP API of a node. There are no timeouts, since importing or exporting a large
 * database takes as long as it takes, and redirects are errors: what a node answers is meant.
 */
export class NodeClient {
  readonly #url: URL;

  constructor(url: string) {
    const parsed = URL.canParse(url) ? new URL(url) : undefined;
    if (parsed?.protocol !== "http:" && parsed?.protocol !== "https:") {
      throw new LitefsError("usage", `-url must be an http:// or https:// URL, not "${url}"`);
    }
    this.#url = parsed;
  }

  async info(): Promise<NodeInfo> {
    const text = await readText(await this.request({ method: "GET", path: "/info" }));
    const info = parseObject(text);
    if (info === undefined || typeof info["isPrimary"] !== "boolean") {
      throw new LitefsError("node-answer", `${this.#url.origin} is not a litefs node: bad /info`);
    }
    return { isPrimary: info["isPrimary"], candidate: info["candidate"] === true };
  }

  /** Resolves when the node is the primary. */
  async promote(force = false): Promise<void> {
    const query = force ? { force: "true" } : {};
    await readText(await this.request({ method: "POST", path: "/promote", query }));
  }

  async demote(): Promise<void> {
    await readText(await this.request({ method: "POST", path: "/demote" }));
  }

  async status(): Promise<Readonly<Record<string, unknown>>> {
    const text = await readText(await this.request({ method: "GET", path: "/status" }));
    const status = parseObject(text);
    if (status === undefined) {
      throw new LitefsError("node-answer", `${this.#url.origin} is not a litefs node: bad /status`);
    }
    return status;
  }

  /** Resolves to the body of a 200; anything else is a LitefsError with the words of the node. */
  async request(request: NodeRequest): Promise<http.IncomingMessage> {
    const response = await this.#send(request);
    if (response.statusCode === 200) return response;
    const text = (await readText(response)).trim().replaceAll(/\s+/g, " ");
    const reason = text === "" ? (response.statusMessage ?? "no reason given") : text;
    const problem = `${this.#url.origin} refused: ${reason} (HTTP ${response.statusCode})`;
    throw new LitefsError("node-refused", problem);
  }

  #send(request: NodeRequest): Promise<http.IncomingMessage> {
    const target = new URL(this.#url);
    target.pathname = target.pathname.replace(/\/$/, "") + request.path;
    target.search = new URLSearchParams(request.query).toString();
    const { promise, resolve, reject } = Promise.withResolvers<http.IncomingMessage>();
    const send = target.protocol === "https:" ? https.request : http.request;
    const outgoing = send(target, { method: request.method, agent: false });
    outgoing.once("response", resolve);
    // A node that refuses may answer and hang up before it has read the body: whichever of answer
    // and error comes first counts, and the error of writing the rest to nobody does not.
    const fail = (error: unknown): void => reject(this.#unreachable(error));
    outgoing.once("error", fail);
    if (request.body === undefined) outgoing.end();
    else pipeline(request.body, outgoing).catch(fail);
    return promise;
  }

  #unreachable(error: unknown): LitefsError {
    const where = this.#url.origin;
    if (errorCode(error) === "ECONNREFUSED") {
      const remedy = "start it with litefs mount, or name another with -url";
      return new LitefsError("node-unreachable", `no node listens at ${where}; ${remedy}`);
    }
    return new LitefsError("node-unreachable", `cannot talk to the node at ${where}`, {
      cause: error,
    });
  }
}

async function readText(body: Readable): Promise<string> {
  let text = "";
  body.setEncoding("utf8");
  for await (const part of body) text += String(part);
  return text;
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
