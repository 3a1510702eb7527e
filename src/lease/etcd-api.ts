import type { Readable } from "node:stream";
import { Agent, request } from "undici";
import { errorText, LitefsError } from "../lib/errors.ts";
import type { TlsOptions } from "./consul-api.ts";

export interface EtcdApiOptions {
  /** Of one cluster: whichever answers is as good as any other. */
  readonly endpoints: readonly string[];
  /** Empty without authentication. */
  readonly username: string;
  readonly password: string;
  readonly tls: TlsOptions;
  /** Of every call but a watch. */
  readonly deadlineMs: number;
}

export interface EtcdEntry {
  readonly key: string;
  readonly value: string;
  /** The lease that the key ends with; "0" for none. */
  readonly lease: string;
  /** The revision of the store at which this value was put. */
  readonly modRevision: string;
}

/** How a conditional put ended: the revision that it made, "lost" when its lease is gone. */
export type EtcdPut = { readonly revision: string } | "held" | "lost";

export interface EtcdAnswer {
  readonly entries: readonly EtcdEntry[];
  readonly revision: string;
}

type Json = Readonly<Record<string, unknown>>;

/** The answer of a server, as opposed to none. */
class EtcdRefusal extends LitefsError {
  override readonly name = "EtcdRefusal";
  readonly status: number;

  constructor(code: string, status: number, message: string, options?: ErrorOptions) {
    super(code, message, options);
    this.status = status;
  }
}

/**
 * The calls of etcd's v3 API that a lease needs, over its JSON gateway: keys and values are base64
 * there, 64-bit numbers are texts, and what is zero is left out.
 */
export class EtcdApi {
  readonly #options: EtcdApiOptions;
  readonly #agent: Agent;
  #endpoint = 0;
  #token: string | undefined;

  constructor(options: EtcdApiOptions) {
    this.#options = options;
    const { ca, cert, key, serverName, verify } = options.tls;
    this.#agent = new Agent({
      connect: {
        timeout: options.deadlineMs,
        rejectUnauthorized: verify,
        ...(ca === undefined ? {} : { ca }),
        ...(cert === undefined ? {} : { cert }),
        ...(key === undefined ? {} : { key }),
        ...(serverName === undefined ? {} : { servername: serverName }),
      },
    });
  }

  /** The id of a new lease. The server may grant more time than was asked for, never less. */
  async grant(ttlMs: number): Promise<string> {
    const { ID } = await this.#call("lease/grant", { TTL: String(Math.ceil(ttlMs / 1000)) });
    if (typeof ID !== "string") throw this.#unexpected("a lease without an id");
    return ID;
  }

  /** False when the lease is gone. */
  async keepAlive(lease: string): Promise<boolean> {
    const { result } = await this.#call("lease/keepalive", { ID: lease });
    const ttl = member(result, "TTL");
    return typeof ttl === "string" && Number(ttl) > 0;
  }

  async revoke(lease: string): Promise<void> {
    try {
      await this.#call("lease/revoke", { ID: lease });
    } catch (error) {
      // Gone already, which is what was wanted.
      if (!(error instanceof EtcdRefusal) || error.status !== 404) throw error;
    }
  }

  /** Puts the key unless it exists; "lost" when the lease is gone. */
  async create(key: string, value: string, lease?: string): Promise<EtcdPut> {
    const absent = { key: base64(key), target: "CREATE", result: "EQUAL", create_revision: "0" };
    return await this.#putIf(absent, key, value, lease);
  }

  /** Replaces the value of a key that ends with this lease. */
  async replace(key: string, value: string, lease: string): Promise<EtcdPut> {
    const ours = { key: base64(key), target: "LEASE", result: "EQUAL", lease };
    return await this.#putIf(ours, key, value, lease);
  }

  async put(key: string, value: string, lease: string): Promise<void> {
    await this.#call("kv/put", { key: base64(key), value: base64(value), lease });
  }

  /** One key or, with `isPrefix`, all that begin with it. */
  async range(key: string, isPrefix = false): Promise<EtcdAnswer> {
    const end = isPrefix ? { range_end: base64(prefixEnd(key)) } : {};
    const { header, kvs } = await this.#call("kv/range", { key: base64(key), ...end });
    return {
      entries: Array.isArray(kvs) ? kvs.map(entryOf) : [],
      revision: textOr0(member(header, "revision")),
    };
  }

  /** Resolves at the first change of the key after the revision, and at the latest after `waitMs`. */
  async watch(key: string, revision: string, waitMs: number, signal: AbortSignal): Promise<void> {
    const start = String(BigInt(revision) + 1n);
    const body = { create_request: { key: base64(key), start_revision: start } };
    const late = AbortSignal.timeout(waitMs);
    const stop = AbortSignal.any([signal, late]);
    try {
      await this.#authenticate();
      const response = await this.#post("watch", body, stop, 0);
      await firstEvent(response.body);
    } catch (cause) {
      if (late.aborted && !signal.aborted) return;
      throw this.#unreachable(cause);
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  async #putIf(
    condition: Json,
    key: string,
    value: string,
    lease: string | undefined,
  ): Promise<EtcdPut> {
    const put = {
      key: base64(key),
      value: base64(value),
      ...(lease === undefined ? {} : { lease }),
    };
    try {
      const { header, succeeded } = await this.#call("kv/txn", {
        compare: [condition],
        success: [{ request_put: put }],
      });
      return succeeded === true ? { revision: textOr0(member(header, "revision")) } : "held";
    } catch (error) {
      if (error instanceof EtcdRefusal && /lease not found/.test(errorText(error))) return "lost";
      throw error;
    }
  }

  /** Tries each endpoint once, from the one that answered last. */
  async #call(method: string, body: Json): Promise<Json> {
    const { endpoints, deadlineMs } = this.#options;
    let failure: unknown;
    for (let attempt = 0; attempt < endpoints.length; attempt++) {
      try {
        await this.#authenticate();
        return await this.#once(method, body);
      } catch (error) {
        if (isStaleToken(error) && this.#token !== undefined) {
          this.#token = undefined;
          await this.#authenticate();
          return await this.#once(method, body);
        }
        // A server that has lost its cluster answers, but another one may do better.
        if (error instanceof EtcdRefusal && error.status < 500) throw error;
        failure ??= error;
        this.#endpoint = (this.#endpoint + 1) % endpoints.length;
      }
    }
    if (failure instanceof EtcdRefusal) throw failure;
    throw this.#unreachable(failure ?? new Error(`no endpoint within ${deadlineMs} ms`));
  }

  async #once(method: string, body: Json): Promise<Json> {
    const { deadlineMs } = this.#options;
    const signal = AbortSignal.timeout(deadlineMs);
    const response = await this.#post(method, body, signal, deadlineMs);
    const text = await response.body.text();
    const answer = parse(text);
    if (response.statusCode === 200 && answer !== undefined) return answer;
    throw this.#refusal(response.statusCode, text, answer);
  }

  async #post(
    method: string,
    body: Json,
    signal: AbortSignal,
    timeoutMs: number,
  ): Promise<{ statusCode: number; body: Readable & { text(): Promise<string> } }> {
    const url = new URL(`/v3/${method}`, this.#options.endpoints[this.#endpoint]);
    const token = this.#token;
    return await request(url, {
      method: "POST",
      dispatcher: this.#agent,
      headers: {
        "content-type": "application/json",
        ...(token === undefined ? {} : { authorization: token }),
      },
      body: JSON.stringify(body),
      signal,
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
    });
  }

  async #authenticate(): Promise<void> {
    const { username, password } = this.#options;
    if (username === "" || this.#token !== undefined) return;
    const { token } = await this.#once("auth/authenticate", { name: username, password });
    if (typeof token !== "string") throw this.#unexpected("no token for a user it knows");
    this.#token = token;
  }

  #refusal(status: number, text: string, answer: Json | undefined): EtcdRefusal {
    const said = answer?.["error"] ?? answer?.["message"];
    const reason = typeof said === "string" ? said : text.slice(0, 200);
    const cause = new Error(reason);
    const where = this.#options.endpoints[this.#endpoint];
    if (/permission denied|authentication failed|user name is empty|auth token/.test(reason)) {
      const remedy =
        "check lease.etcd.username and password, and the role's permission for the key";
      return new EtcdRefusal("LEASE_ACCESS_DENIED", status, `etcd at ${where} refused: ${remedy}`, {
        cause,
      });
    }
    return new EtcdRefusal("LEASE_BACKEND_FAILED", status, `etcd at ${where} answered ${status}`, {
      cause,
    });
  }

  #unexpected(what: string): LitefsError {
    return new LitefsError("LEASE_BACKEND_FAILED", `etcd gave ${what}: is this etcd 3.4 or later?`);
  }

  #unreachable(cause: unknown): LitefsError {
    if (cause instanceof LitefsError) return cause;
    return new LitefsError(
      "LEASE_BACKEND_UNREACHABLE",
      `cannot reach etcd at ${this.#options.endpoints.join(", ")}: check lease.etcd.endpoints and the network`,
      { cause },
    );
  }
}

/** The stream of a watch is JSON objects, one in a line: first that it was created, then events. */
async function firstEvent(body: Readable): Promise<void> {
  let text = "";
  try {
    for await (const chunk of body) {
      text += String(chunk);
      if (/"(?:events|canceled)"/.test(text)) return;
    }
  } finally {
    body.destroy();
  }
}

function isStaleToken(error: unknown): boolean {
  const stale = /invalid auth token|revision of auth store is old/;
  return error instanceof EtcdRefusal && stale.test(errorText(error));
}

function entryOf(found: unknown): EtcdEntry {
  return {
    key: text64(member(found, "key")),
    value: text64(member(found, "value")),
    lease: textOr0(member(found, "lease")),
    modRevision: textOr0(member(found, "mod_revision")),
  };
}

function member(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
}

/** The gateway leaves out a number that is zero. */
function textOr0(value: unknown): string {
  return typeof value === "string" ? value : "0";
}

function parse(text: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}

function base64(text: string): string {
  return Buffer.from(text).toString("base64");
}

function text64(value: unknown): string {
  return typeof value === "string" ? Buffer.from(value, "base64").toString("utf8") : "";
}

/** The first key that does not begin with the prefix; ours end in a slash, below 0xff. */
function prefixEnd(prefix: string): string {
  const last = prefix.charCodeAt(prefix.length - 1);
  return prefix.slice(0, -1) + String.fromCharCode(last + 1);
}
