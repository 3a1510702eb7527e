import { Readable } from "node:stream";
import type { FastifyInstance } from "fastify";
import type { NodeApi } from "../node-api.ts";

/** What a subscriber may leave unread, about a thousand events, before it is cut off. */
const MAX_UNREAD_BYTES = 192 * 1024;

/** GET /events: one JSON object per line, for every transaction and every change of the primary. */
export function registerEvents(app: FastifyInstance, node: NodeApi, closing: AbortSignal): void {
  app.get("/events", (_request, reply) => {
    const lines = new Readable({ read: () => undefined });
    const unsubscribe = node.events.subscribe((event) => {
      lines.push(`${JSON.stringify(event)}\n`);
      if (lines.readableLength <= MAX_UNREAD_BYTES) return;
      lines.destroy(new Error("the subscriber reads too slowly"));
    });
    const onClosing = (): void => {
      lines.push(null);
    };
    closing.addEventListener("abort", onClosing, { once: true });
    lines.once("error", (error) => {
      node.log.warn("event subscriber dropped", { error: error.message });
    });
    lines.once("close", () => {
      unsubscribe();
      closing.removeEventListener("abort", onClosing);
    });
    return reply.header("content-type", "application/json").send(lines);
  });
}
