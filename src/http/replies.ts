import type { FastifyReply, FastifyRequest } from "fastify";

/** Errors are one line of text, as LiteFS sends them. */
export function sendText(reply: FastifyReply, status: number, message: string): FastifyReply {
  return reply
    .code(status)
    .header("content-type", "text/plain; charset=utf-8")
    .header("x-content-type-options", "nosniff")
    .send(`${message}\n`);
}

export function sendJson(reply: FastifyReply, status: number, value: unknown): FastifyReply {
  return reply
    .code(status)
    .header("content-type", "application/json; charset=utf-8")
    .send(`${JSON.stringify(value, undefined, 2)}\n`);
}

/** One query parameter; undefined when it is missing or empty. */
export function queryParameter(query: unknown, name: string): string | undefined {
  if (typeof query !== "object" || query === null) return undefined;
  const value: unknown = Reflect.get(query, name);
  // A repeated parameter is a list; the first one counts, as in Go.
  const first: unknown = Array.isArray(value) ? value[0] : value;
  return typeof first === "string" && first !== "" ? first : undefined;
}

/** The node that asks. Missing or malformed counts as id 0, as in LiteFS. */
export function nodeIdOf(request: FastifyRequest): string {
  const header = request.headers["litefs-id"];
  const text = typeof header === "string" ? header.trim() : "";
  if (!/^[0-9a-fA-F]{1,16}$/.test(text)) return "0".repeat(16);
  return text.toUpperCase().padStart(16, "0");
}
