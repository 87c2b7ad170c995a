// What the configuration may say, and what is said where it is wrong; the README's example.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { configureZooKeeper } from "./config.ts";

describe("the configuration", () => {
  it("is the README's example", () => {
    const readme = readFileSync(new URL("README.md", import.meta.url), "utf8");
    const [, example = ""] = /<!-- example -->\n```json\n(.*?)```/s.exec(readme) ?? [];
    expect(configureZooKeeper(JSON.parse(example).protocols.zookeeper)).toEqual({
      servers: "zk1.example.com:2181,zk2.example.com:2181",
      sessionMs: 10_000,
      sets: [
        { path: "/discovery/*", tags: [], endpoints: true },
        { path: "/aurora/devcluster/www/prod/hello", service: "hello", tags: ["aurora"], endpoints: true },
      ],
      announce: [{ service: "web", path: "/discovery/{service}", tags: [], from: "host", shard: "shard" }],
    });
  });

  it("is Discotech's", () => {
    const disco = {
      zookeeper_host: "zk",
      zookeeper_port: 22181,
      zookeeper_poll_ms: 500,
      zookeeper_timeout_secs: 5,
      serverset_znode: "/twitter/service/role/prod/web",
    };
    expect(configureZooKeeper(disco)).toEqual({
      servers: "zk:22181",
      sessionMs: 5000,
      sets: [{ path: "/twitter/service/role/prod/web", tags: [], endpoints: true }],
      announce: [],
    });
  });

  it("is off unless told", () => {
    for (const raw of [undefined, null, false]) expect(configureZooKeeper(raw)).toBeUndefined();
  });

  it("takes credentials, endpoints and names made of paths", () => {
    expect(
      configureZooKeeper({
        servers: "zk1,zk2:2182/below",
        auth: "digest:me:se:cret",
        sets: [
          { path: "/a/*/*", service: "{2}-{1}", endpoint: "http" },
          { path: "/b", endpoints: { http: "b-admin" } },
          { path: "/c", endpoints: false },
        ],
        announce: { service: "*", path: "/d/{service}", from: "directory", shard: "nr", tags: "x" },
      }),
    ).toMatchObject({
      auth: { scheme: "digest", credentials: "me:se:cret" },
      sets: [{ endpoint: "http", endpoints: false }, { endpoints: { http: "b-admin" } }, { endpoints: false }],
      announce: [{ from: "directory", shard: "nr", tags: ["x"] }],
    });
  });

  it.each([
    ["yes", /zookeeper: expected an object/],
    [true, /nothing is to be read/],
    [{ sets: "/a", server: "zk" }, /zookeeper\.server: unknown key; known are servers/],
    [{ sets: "a" }, /zookeeper\.sets\.path: expected the path of a server set.* but got "a"/],
    [{ sets: ["/a", {}] }, /zookeeper\.sets\[1\]\.path: expected the path/],
    [{ sets: "/a*" }, /"\*" in place of a whole part/],
    [{ sets: [{ path: "/a/*", service: "{2}" }] }, /sets\[0\]\.service: expected \{1\} to \{1\}/],
    [{ sets: "/a", servers: "zk:99999" }, /zookeeper\.servers: "zk:99999": expected a port/],
    [{ sets: "/a", servers: "zk1, zk2" }, /zookeeper\.servers: expected servers such as/],
    [{ sets: "/a", servers: "zk", zookeeper_host: "zk" }, /told twice/],
    [{ sets: "/a", auth: "digest:me" }, /zookeeper\.auth: expected credentials such as/],
    [{ sets: "/a", session_timeout: "10" }, /session_timeout: time: missing unit/],
    [{ sets: "/a", session_timeout: "10ms" }, /session_timeout: expected at least 1000 ms/],
    [{ announce: { service: "*", path: "/a" } }, /\{service\} in it/],
    [{ announce: { service: "a", path: "/b/{nmae}" } }, /announce\.path: .*\{nmae\} is nothing/],
    [{ announce: { service: "a" } }, /zookeeper\.announce: expected both/],
    [{ announce: { service: "a", path: "/b", from: "lan" } }, /announce\.from: expected "host" or "directory"/],
  ])("refuses %j", (raw, text) => {
    expect(() => configureZooKeeper(raw)).toThrow(text);
  });
});
