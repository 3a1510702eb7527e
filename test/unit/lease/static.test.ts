import { expect, test } from "vitest";
import { StaticLeaseProvider } from "../../../src/lease/static.ts";

const primary = { hostname: "db1", advertiseUrl: "http://db1:20202" };

test("the candidate always gets the lease, and it never expires", async () => {
  const provider = new StaticLeaseProvider({ candidate: true, ...primary });
  for (let attempt = 0; attempt < 2; attempt++) {
    const lease = await provider.acquire();
    expect(lease?.expiresAtMonotonicMs()).toBe(Infinity);
    await lease?.renew();
    await lease?.close();
  }
  expect(provider).toMatchObject({ kind: "static", ...primary });
  await provider.close();
});

test("the candidate sees no primary but itself", async () => {
  const provider = new StaticLeaseProvider({ candidate: true, ...primary });
  expect(await provider.primaryInfo()).toBeUndefined();
});

test("a node that is no candidate never gets the lease and knows the primary", async () => {
  const provider = new StaticLeaseProvider({ candidate: false, ...primary });
  expect(await provider.acquire()).toBeUndefined();
  expect(await provider.primaryInfo()).toEqual(primary);
});
