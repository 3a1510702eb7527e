import * as http from "node:http";
import type { AddressInfo } from "node:net";

export interface FakeNode {
  readonly url: string;
  /** `METHOD path?query` of each request. */
  readonly requests: string[];
  close(): void;
}

export type Answer = (request: http.IncomingMessage, response: http.ServerResponse) => void;

/** Something that listens on loopback as a node does, and answers as a test tells it to. */
export async function startFakeNode(answer: Answer): Promise<FakeNode> {
  const requests: string[] = [];
  const server = http.createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`);
    answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  // A TCP server that listens has an address with a port.
  const address: AddressInfo | string | null = server.address();
  const port = typeof address === "object" ? address?.port : undefined;
  return {
    url: `http://127.0.0.1:${port}`,
    requests,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
