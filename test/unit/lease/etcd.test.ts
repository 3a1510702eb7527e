import * as http from "node:http";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { EtcdLeaseProvider } from "../../../src/lease/etcd.ts";
import { systemClock } from "../../../src/lib/clock.ts";

const TTL_MS = 2_000;

interface Put {
  readonly value: string;
  readonly lease: string;
}

/** As much of etcd as an acquisition needs: leases that do not end by themselves, and one key. */
class SmallEtcd {
  readonly #leases = new Set<string>();
  #held: (Put & { readonly modRevision: string }) | undefined;
  #revision = 1;
  /** Of the next transaction, which is made all the same. */
  losesAnswer = false;

  answer(path: string, body: Record<string, unknown>): object | undefined {
    const header = { revision: String(this.#revision) };
    switch (path) {
      case "/v3/lease/grant": {
        const id = String(100 + this.#leases.size);
        this.#leases.add(id);
        return { ID: id, TTL: body["TTL"] };
      }
      case "/v3/lease/keepalive":
        return { result: { ID: body["ID"], TTL: "2" } };
      case "/v3/kv/txn": {
        const [{ request_put: put }] = body["success"] as [{ request_put: Put }];
        const succeeded = this.#held === undefined;
        if (succeeded) this.#held = { ...put, modRevision: String(++this.#revision) };
        const isLost = this.losesAnswer;
        this.losesAnswer = false;
        return isLost ? undefined : { header: { revision: String(this.#revision) }, succeeded };
      }
      case "/v3/kv/range": {
        const held = this.#held;
        const { value = "", lease = "", modRevision: mod_revision = "" } = held ?? {};
        return { header, kvs: held === undefined ? [] : [{ key: "", value, lease, mod_revision }] };
      }
      default:
        return {};
    }
  }

  async listen(): Promise<string> {
    const server = http.createServer((request, response) => {
      let text = "";
      request.on("data", (chunk) => (text += String(chunk)));
      request.on("end", () => {
        const answer = this.answer(request.url ?? "", JSON.parse(text));
        if (answer !== undefined) response.end(JSON.stringify(answer));
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => {
      server.closeAllConnections();
      server.close();
    });
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }
}

function provider(url: string, hostname: string): EtcdLeaseProvider {
  const made = new EtcdLeaseProvider({
    hostname,
    advertiseUrl: `http://${hostname}:20202`,
    endpoints: [url],
    key: "litefs",
    username: "",
    password: "",
    tls: { verify: true },
    ttlMs: TTL_MS,
    clock: systemClock,
  });
  onTestFinished(() => made.close());
  return made;
}

test("an acquisition of which the answer is lost is found by the next attempt", async () => {
  const etcd = new SmallEtcd();
  const url = await etcd.listen();
  const [a, b] = [provider(url, "a"), provider(url, "b")];
  etcd.losesAnswer = true;
  await expect(a.acquire()).rejects.toMatchObject({ code: "LEASE_BACKEND_UNREACHABLE" });
  expect(await b.acquire()).toBeUndefined();
  const lease = await a.acquire();
  expect(lease).toMatchObject({ id: "100", token: 2 });
  expect(await a.primaryInfo()).toMatchObject({ hostname: "a", token: 2 });
});
