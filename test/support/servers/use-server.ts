import { afterAll, beforeAll } from "vitest";
import type { ServerProcess } from "./server-process.ts";

/** The program may have to be installed first. */
const START_TIMEOUT_MS = 180_000;

/** One server for all tests of a file, or of a `describe`; undefined where its program cannot be had. */
export function useServer<Server extends { readonly process: ServerProcess }>(
  start: () => Promise<Server | undefined>,
): () => Server | undefined {
  let server: Server | undefined;
  beforeAll(async () => {
    server = await start();
  }, START_TIMEOUT_MS);
  afterAll(async () => await server?.process.dispose());
  return () => server;
}
