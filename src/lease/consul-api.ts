import { EventEmitter } from "node:events";
import * as http from "node:http";
import * as https from "node:https";
import Consul from "consul";
import { LitefsError } from "../lib/errors.ts";

export interface TlsOptions {
  /** PEM texts. */
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly serverName?: string;
  /** False accepts any certificate. */
  readonly verify: boolean;
}

export interface ConsulApiOptions {
  /** Scheme, host and port. */
  readonly origin: string;
  readonly token: string;
  readonly tls: TlsOptions;
  /** Of every call but a watch, which has its own time on top. */
  readonly deadlineMs: number;
}

/** One entry of the key-value store. */
export interface ConsulEntry {
  readonly key: string;
  readonly value: string;
  /** The session that holds it. */
  readonly session: string | undefined;
  /** The index of Consul's own log at which the entry was written last. */
  readonly modifyIndex: number;
}

export interface ConsulAnswer {
  readonly entry: ConsulEntry | undefined;
  /** What a later watch continues from. */
  readonly index: string;
}

export interface SessionRequest {
  readonly name: string;
  readonly ttlMs: number;
  readonly lockDelayMs: number;
  /** A registered node; the agent's own when undefined. */
  readonly node: string | undefined;
}

/**
 * The calls of Consul's HTTP API that a lease needs, over the package `consul`. Added here: types,
 * a deadline for every call, and errors that say what to do.
 */
export class ConsulApi {
  readonly #options: ConsulApiOptions;
  readonly #client: Consul;
  readonly #agent: http.Agent;

  constructor(options: ConsulApiOptions) {
    this.#options = options;
    const { origin, token, tls } = options;
    const agent = origin.startsWith("https:")
      ? new https.Agent({ keepAlive: true, ...agentTls(tls) })
      : new http.Agent({ keepAlive: true });
    this.#agent = agent;
    // The package's types lack the base URL.
    const settings = {
      baseUrl: new URL("/v1", origin),
      agent,
      ...(token === "" ? {} : { defaults: { token } }),
    };
    this.#client = new Consul(settings);
  }

  async createSession(request: SessionRequest): Promise<string> {
    const { name, ttlMs, lockDelayMs, node } = request;
    const created: unknown = await this.#call((common) =>
      this.#client.session.create({
        name,
        behavior: "delete",
        ttl: `${ttlMs}ms`,
        lockdelay: `${lockDelayMs}ms`,
        // Without this the session would end with the health of the agent, not with its TTL.
        checks: [],
        ...(node === undefined ? {} : { node }),
        ...common,
      }),
    );
    const id = member(created, "ID");
    if (typeof id !== "string" || id === "") throw this.#notConsul();
    return id;
  }

  /** False when the session is gone. */
  async renewSession(id: string): Promise<boolean> {
    try {
      await this.#call((common) => this.#client.session.renew({ id, ...common }));
      return true;
    } catch (error) {
      if (statusOf(error) === 404) return false;
      throw error;
    }
  }

  async destroySession(id: string): Promise<void> {
    await this.#call((common) => this.#client.session.destroy({ id, ...common }));
  }

  /** "lost" when the session is gone; "held" when another has the key, or its lock-delay runs. */
  async acquire(key: string, value: string, session: string): Promise<"ok" | "held" | "lost"> {
    try {
      // False arrives as undefined.
      const ok: unknown = await this.#call((common) =>
        this.#client.kv.set({ key, value, acquire: session, ...common }),
      );
      return ok === true ? "ok" : "held";
    } catch (error) {
      if (statusOf(error) === 500 && /invalid session/i.test(responseText(error))) return "lost";
      throw error;
    }
  }

  /** Blanks the value and frees the key without the lock-delay that the session's end brings. */
  async release(key: string, session: string): Promise<void> {
    await this.#call((common) =>
      this.#client.kv.set({ key, value: "", release: session, ...common }),
    );
  }

  async get(key: string): Promise<ConsulAnswer> {
    return await this.#read(key, {}, this.#options.deadlineMs);
  }

  /** As `get`, once the entry has changed since `index`, or after `waitMs`. */
  async watch(
    key: string,
    index: string,
    waitMs: number,
    signal: AbortSignal,
  ): Promise<ConsulAnswer> {
    // Consul adds up to a sixteenth by itself.
    const deadlineMs = Math.ceil((waitMs * 17) / 16) + this.#options.deadlineMs;
    return await this.#read(key, { index, wait: `${waitMs}ms` }, deadlineMs, signal);
  }

  /** Writes only where nothing is; false when something was. */
  async create(key: string, value: string): Promise<boolean> {
    const ok: unknown = await this.#call((common) =>
      this.#client.kv.set({ key, value, cas: 0, ...common }),
    );
    return ok === true;
  }

  async list(prefix: string): Promise<readonly ConsulEntry[]> {
    const found: unknown = await this.#call((common) =>
      this.#client.kv.get({ key: prefix, recurse: true, ...common }),
    );
    if (!Array.isArray(found)) return [];
    return found.map(entryOf).filter((entry) => entry !== undefined);
  }

  /** A node that need not exist, to bind sessions to. */
  async registerNode(node: string): Promise<void> {
    await this.#call((common) =>
      this.#client.catalog.register({ node, address: "localhost", ...common }),
    );
  }

  close(): void {
    this.#agent.destroy();
  }

  async #read(
    key: string,
    query: Readonly<Record<string, string>>,
    deadlineMs: number,
    signal?: AbortSignal,
  ): Promise<ConsulAnswer> {
    const ctx = Object.assign(new EventEmitter(), { includeResponse: true });
    const onAbort = (): void => {
      ctx.emit("cancel");
    };
    if (signal?.aborted === true) throw new Error("aborted");
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      const answer: unknown = await this.#call((common) => {
        const options = { key, ctx, ...query, ...common };
        return this.#client.kv.get(options);
      }, deadlineMs);
      const [response, found]: unknown[] = Array.isArray(answer) ? answer : [];
      const index = indexOf(response);
      // Consul sends it with every answer about a key, also when there is none.
      if (index === undefined) throw this.#notConsul();
      return { entry: entryOf(found), index };
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  async #call<T>(
    request: (common: object) => Promise<T>,
    deadlineMs: number = this.#options.deadlineMs,
  ): Promise<T> {
    try {
      return await request({ timeout: deadlineMs });
    } catch (cause) {
      throw this.#explain(cause);
    }
  }

  /** A proxy's own page, perhaps: taken for an answer, it would say that nobody has the lease. */
  #notConsul(): ConsulError {
    const { origin } = this.#options;
    const problem = `what answers at ${origin} is not Consul: check lease.consul.url`;
    return new ConsulError("LEASE_BACKEND_FAILED", problem);
  }

  #explain(cause: unknown): LitefsError {
    const status = statusOf(cause);
    const text = responseText(cause);
    const { origin } = this.#options;
    if (status === 403) {
      const remedy = "give a token with session:write and key:write in lease.consul.url";
      return new ConsulError("LEASE_ACCESS_DENIED", `Consul at ${origin} refused: ${remedy}`, {
        cause,
      });
    }
    if (status !== undefined && text !== "") {
      return new ConsulError("LEASE_BACKEND_FAILED", `Consul at ${origin} answered ${status}`, {
        cause: new Error(text, { cause }),
      });
    }
    return new ConsulError(
      "LEASE_BACKEND_UNREACHABLE",
      `cannot reach Consul at ${origin}: check lease.consul.url and the network`,
      { cause },
    );
  }
}

class ConsulError extends LitefsError {
  override readonly name = "ConsulError";
}

function agentTls(tls: TlsOptions): https.AgentOptions {
  const { ca, cert, key, serverName, verify } = tls;
  return {
    rejectUnauthorized: verify,
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(serverName === undefined ? {} : { servername: serverName }),
  };
}

function member(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
}

function entryOf(found: unknown): ConsulEntry | undefined {
  const key = member(found, "Key");
  if (typeof key !== "string") return undefined;
  const value = member(found, "Value");
  const session = member(found, "Session");
  const modifyIndex = member(found, "ModifyIndex");
  return {
    key,
    value: typeof value === "string" ? value : "",
    session: typeof session === "string" ? session : undefined,
    modifyIndex: typeof modifyIndex === "number" ? modifyIndex : 0,
  };
}

function indexOf(response: unknown): string | undefined {
  const index = member(member(response, "headers"), "x-consul-index");
  return typeof index === "string" ? index : undefined;
}

/** Of the answer, also when the error that carries it was wrapped. */
function statusOf(error: unknown): number | undefined {
  const status = member(member(error, "response"), "statusCode") ?? member(error, "statusCode");
  if (typeof status === "number") return status;
  return error instanceof Error && error.cause !== undefined ? statusOf(error.cause) : undefined;
}

function responseText(error: unknown): string {
  const body = member(member(error, "response"), "body");
  if (typeof body === "string" || Buffer.isBuffer(body)) return body.toString("utf8").trim();
  return error instanceof Error && error.cause !== undefined ? responseText(error.cause) : "";
}
