// What etcd's errors mean, and which endpoints are understood.
import { describe, expect, test } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { clientTiming, type EtcdAccess, parseEndpoint } from "./access.ts";
import { createClient } from "./client.ts";
import { sortError } from "./error.ts";
import { loadWires } from "./proto.ts";

describe("endpoints", () => {
  test.each([
    ["http://127.0.0.1:2379", { target: "127.0.0.1:2379", tls: false }],
    ["https://etcd-1.example:2379/", { target: "etcd-1.example:2379", tls: true }],
    ["http://[::1]:2379", { target: "[::1]:2379", tls: false }],
  ])("%s", (text, parsed) => {
    expect(parseEndpoint(text)).toEqual(parsed);
  });

  test.each(["", "etcd:2379", "http://etcd", "ftp://etcd:1", "http://etcd:99999", "http://a:1/path", "http://u:p@a:1"])(
    "%s is refused with what would be right",
    (text) => {
      expect(() => parseEndpoint(text)).toThrow(
        `etcd.endpoints: "${text}" is not an endpoint; write it as "http://host:2379"`,
      );
    },
  );

  test("settings that cannot work are refused by name", async () => {
    const settings: EtcdAccess = { endpoints: ["http://127.0.0.1:1"] };
    const ground = { clock: fakeClock(), disk: { readBytes: () => Promise.reject(new Error("no disk")) } };
    await expect(createClient({ ...settings, endpoints: [] }, ground, clientTiming)).rejects.toThrow(/etcd\.endpoints/);
    await expect(createClient({ ...settings, username: "u" }, ground, clientTiming)).rejects.toThrow(/password/);
    const tls = { ...settings, endpoints: ["https://127.0.0.1:1"] };
    await expect(createClient({ ...tls, certFile: "c" }, ground, clientTiming)).rejects.toThrow(/keyFile/);
    await expect(createClient({ ...tls, caFile: "ca.pem" }, ground, clientTiming)).rejects.toThrow(
      /etcd\.caFile "ca\.pem": no disk/,
    );
    const client = await createClient(settings, ground, clientTiming);
    client.close();
    client.close();
    await expect(client.call("range", { key: Buffer.from("k") })).rejects.toMatchObject({ code: "stopped" });
  });
});

// Status and text as etcd 3.4's rpctypes has them.
test.each([
  [14, "etcdserver: no leader", "unavailable", "no", true],
  [14, "etcdserver: request timed out", "unavailable", "maybe", true],
  [14, "etcdserver: leader changed", "unavailable", "maybe", true],
  [14, "No connection established. Last error: connect ECONNREFUSED 127.0.0.1:1", "unavailable", "no", true],
  [14, "Connection dropped", "unavailable", "maybe", true],
  [8, "etcdserver: mvcc: database space exceeded", "disk-full", "no", false],
  [8, "etcdserver: too many requests", "unavailable", "no", true],
  [8, "grpc: received message larger than max (5243144 vs. 2097152)", "too-large", "no", false],
  [3, "etcdserver: request is too large", "too-large", "no", false],
  [3, "etcdserver: too many operations in txn request", "too-large", "no", false],
  [3, "etcdserver: duplicate key given in txn request", "invalid", "no", false],
  [3, "etcdserver: authentication failed, invalid user ID or password", "not-allowed", "no", false],
  [7, "etcdserver: permission denied", "not-allowed", "no", false],
  [16, "etcdserver: invalid auth token", "not-allowed", "no", true],
  [5, "etcdserver: requested lease not found", "not-found", "no", false],
  [9, "etcdserver: authentication is not enabled", "not-allowed", "no", false],
  [1, "Cancelled on client", "unavailable", "maybe", true],
  [13, "something new", "internal", "maybe", true],
] as const)("%i %s", (code, details, mine, done, temporary) => {
  const error = sortError({ code, details }, "etcd txn at http://a:1");
  expect({ code: error.code, done: error.done, temporary: error.temporary }).toEqual({ code: mine, done, temporary });
  expect(error.message).toContain("etcd txn at http://a:1: ");
  expect(error.details).toBe(details);
});

test("messages have the bytes of etcd's protocol", async () => {
  const wires = await loadWires();
  expect(wires.range.path).toBe("/etcdserverpb.KV/Range");
  expect(wires.leaseKeepAlive.path).toBe("/etcdserverpb.Lease/LeaseKeepAlive");
  // Worked out by hand from the field numbers: 1 key, 2 range_end, 3 limit, 4 revision.
  expect(
    wires.range
      .serialize({ key: Buffer.from("a"), rangeEnd: Buffer.from("b"), limit: 300, revision: 2 ** 40 })
      .toString("hex"),
  ).toBe("0a0161120162" + "18ac02" + "20808080808020");
  // result and target are enums; version is set although it is 0.
  expect(
    wires.txn
      .serialize({
        compare: [{ target: 0, key: Buffer.from("k"), version: 0 }],
        success: [{ requestPut: { key: Buffer.from("k"), value: Buffer.from("v"), lease: 7 } }],
        failure: [],
      })
      .toString("hex"),
  ).toBe(["0a07", "1000", "1a016b", "2000", "120a", "1208", "0a016b", "120176", "1807"].join(""));
  expect(wires.watch.serialize({ progressRequest: {} }).toString("hex")).toBe("1a00");
  const answer = wires.watch.deserialize(
    Buffer.from(["0a02180a", "1801", "3801", "5a0b", "0801", "1207", "0a016b180a2003"].join(""), "hex"),
  );
  expect(answer).toMatchObject({
    header: { revision: 10 },
    created: true,
    canceled: false,
    compactRevision: 0,
    fragment: true,
    events: [{ type: 1, kv: { modRevision: 10, version: 3, lease: 0 } }],
  });
  expect(answer.events[0]?.kv.key.toString()).toBe("k");
});
