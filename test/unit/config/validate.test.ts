import { describe, expect, test } from "vitest";
import type { Config } from "../../../src/config/config.ts";
import { ConfigError } from "../../../src/config/config-error.ts";
import { parseConfig } from "../../../src/config/parse.ts";
import { validateConfig } from "../../../src/config/validate.ts";

const machine = { hostname: "box", currentDirectory: "/srv" };

function validate(text: string): Config {
  return validateConfig(parseConfig(text, "litefs.yml"), machine);
}

function problem(text: string): string {
  try {
    validate(text);
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  return "no error";
}

test("a static primary needs nothing but the lease type", () => {
  expect(validate("lease: {type: static}").lease).toMatchObject({
    type: "static",
    candidate: true,
    hostname: "box",
    advertiseUrl: "http://box:20202",
  });
});

test("the advertised URL follows the hostname and the port", () => {
  const { lease } = validate("http: {addr: '[::1]:999'}\nlease: {type: static, hostname: db1}");
  expect(lease.advertiseUrl).toBe("http://db1:999");
});

test("what is written is kept", () => {
  const text = "lease: {type: static, candidate: false, hostname: p, advertise-url: 'https://p/x'}";
  expect(validate(text).lease).toMatchObject({ hostname: "p", advertiseUrl: "https://p/x" });
});

test("directories become absolute", () => {
  const config = validate("data: {dir: d/../data}\nfuse: {dir: ./m/}\nlease: {type: static}");
  expect([config.data.dir, config.fuse.dir]).toEqual(["/srv/data", "/srv/m"]);
});

test("siblings with a common beginning are apart", () => {
  expect(problem("data: {dir: /a}\nfuse: {dir: /ab}\nlease: {type: static}")).toBe("no error");
  expect(problem("data: {dir: /a}\nfuse: {dir: /..b}\nlease: {type: static}")).toBe("no error");
});

describe("each problem has its line and says what to do", () => {
  const valid = "lease: {type: static}\n";
  test.each([
    [
      "a majority of nobody knows how many",
      `${valid}sync:\n  replicas: majority`,
      "litefs.yml:3: sync.replicas: majority needs sync.nodes, the number of nodes, 2 or more",
    ],
    [
      "more replicas than there are",
      `${valid}sync:\n  databases: {app.db: 3}\n  nodes: 3`,
      "litefs.yml:3: sync.databases: app.db: 3 replicas are more than a cluster with sync.nodes 3 has",
    ],
    [
      "a path where the name of a database should be",
      `${valid}sync:\n  databases: {a/b: 1}`,
      'litefs.yml:3: sync.databases: "a/b" is no name of a database',
    ],
    [
      "no time to wait",
      `${valid}sync: {timeout: 0}`,
      "litefs.yml:2: sync.timeout must be more than 0",
    ],
    ["no lease", "", "litefs.yml: lease.type is required: static, consul or etcd"],
    [
      "same directory",
      `${valid}data:\n  dir: /x\nfuse: {dir: /y/../x/}`,
      "litefs.yml:3: data.dir and fuse.dir must differ, both are /x",
    ],
    [
      "data in mount",
      `${valid}fuse:\n  dir: /var`,
      "litefs.yml:3: data.dir /var/lib/litefs must not be inside fuse.dir /var",
    ],
    [
      "mount in data",
      `${valid}data:\n  dir: /`,
      "litefs.yml:3: fuse.dir /litefs must not be inside data.dir /",
    ],
    [
      "mount in data, with a name that begins with two dots",
      `${valid}fuse:\n  dir: /var/lib/litefs/..m`,
      "litefs.yml:3: fuse.dir /var/lib/litefs/..m must not be inside data.dir /var/lib/litefs",
    ],
    ["empty directory", `${valid}data: {dir: ""}`, "litefs.yml:2: data.dir must not be empty"],
    [
      "address without port",
      `${valid}http: {addr: localhost}`,
      'litefs.yml:2: http.addr must have the form host:port or :port, not "localhost"',
    ],
    [
      "port too large",
      `${valid}http: {addr: ":65536"}`,
      'litefs.yml:2: http.addr must have the form host:port or :port, not ":65536"',
    ],
    [
      "replica without hostname",
      "lease:\n  type: static\n  candidate: false",
      "litefs.yml: lease.hostname is required on a static replica, it names the primary",
    ],
    [
      "replica without URL",
      "lease:\n  type: static\n  candidate: false\n  hostname: a",
      "litefs.yml: lease.advertise-url is required on a static replica, it names the primary",
    ],
    [
      "not HTTP",
      "lease:\n  type: static\n  advertise-url: ftp://a",
      'litefs.yml:3: lease.advertise-url must be an http:// or https:// URL, not "ftp://a"',
    ],
    [
      "no URL",
      "lease:\n  type: static\n  advertise-url: a b",
      'litefs.yml:3: lease.advertise-url must be an http:// or https:// URL, not "a b"',
    ],
    [
      "databases of a candidate",
      "lease:\n  type: static\n  databases: [a]",
      "litefs.yml:3: lease.databases is not for candidates, which must hold every database: set lease.candidate to false or remove it",
    ],
    [
      "consul without URL",
      "lease: {type: consul}",
      "litefs.yml: lease.consul.url is required with lease.type consul, where neither FLY_CONSUL_URL nor CONSUL_HTTP_ADDR is set",
    ],
    [
      "a TTL that Consul refuses",
      "lease: {type: consul, consul: {url: 'http://c', ttl: 5s}}",
      "litefs.yml:1: lease.consul.ttl must be at least 10s, Consul's minimum",
    ],
    [
      "etcd without endpoints",
      "lease: {type: etcd}",
      "litefs.yml: lease.etcd.endpoints is required with lease.type etcd, where ETCDCTL_ENDPOINTS is not set",
    ],
    [
      "an endpoint that is none",
      "lease: {type: etcd, etcd: {endpoints: ['ftp://e']}}",
      'litefs.yml:1: lease.etcd.endpoints must be an http:// or https:// URL, not "ftp://e"',
    ],
    [
      "proxy without address",
      `${valid}proxy: {target: "localhost:80"}`,
      "litefs.yml: proxy.addr is required with proxy.target",
    ],
    [
      "proxy without database",
      `${valid}proxy: {target: "localhost:80", addr: ":81"}`,
      "litefs.yml: proxy.db is required with proxy.target",
    ],
    [
      "backup without path",
      `${valid}backup: {type: file}`,
      "litefs.yml: backup.path is required with backup.type file",
    ],
  ])("%s", (_, text, expected) => {
    expect(problem(text)).toBe(expected);
  });
});

describe("what the environment says of the lease", () => {
  const leaseOf = (text: string, env: Record<string, string>) =>
    validateConfig(parseConfig(text, "litefs.yml"), machine, env).lease;

  test.each([
    [{ FLY_CONSUL_URL: "https://:t@fly/x", CONSUL_HTTP_ADDR: "c:1" }, "https://:t@fly/x"],
    [{ CONSUL_HTTP_ADDR: "c:8500" }, "http://c:8500"],
    [{ CONSUL_HTTP_ADDR: "c:8501", CONSUL_HTTP_SSL: "true" }, "https://c:8501"],
    [{ CONSUL_HTTP_ADDR: "https://c:8501" }, "https://c:8501"],
  ])("Consul is found by %o", (env, url) => {
    expect(leaseOf("lease: {type: consul}", env).consul.url).toBe(url);
    const written = "lease: {type: consul, consul: {url: 'http://other', key: k}}";
    expect(leaseOf(written, env).consul).toMatchObject({ url: "http://other", key: "k" });
  });

  test("the key is that of the application on Fly.io", () => {
    const env = { CONSUL_HTTP_ADDR: "c:1", ETCDCTL_ENDPOINTS: "e1:2379,https://e2:2379" };
    expect(leaseOf("lease: {type: consul}", env).consul.key).toBe("litefs/primary");
    const fly = { ...env, FLY_APP_NAME: "shop" };
    expect(leaseOf("lease: {type: consul}", fly).consul.key).toBe("litefs/shop");
    expect(leaseOf("lease: {type: etcd}", fly).etcd).toMatchObject({
      key: "litefs/shop",
      endpoints: ["http://e1:2379", "https://e2:2379"],
    });
  });
});
