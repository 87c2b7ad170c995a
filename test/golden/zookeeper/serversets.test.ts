// Every observation of real server sets (ZooKeeper 3.8.0, kazoo, Prometheus), held against what reads and writes them here.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { systemClock } from "../../../src/base/clock.ts";
import type { TrilithError } from "../../../src/base/error.ts";
import type { ZooKeeper } from "../../../src/base/zookeeper.ts";
import { planMembers } from "../../../src/protocols/zookeeper/announce-plan.ts";
import { configureZooKeeper } from "../../../src/protocols/zookeeper/config.ts";
import { decodeMember, encodeMember, isMemberName } from "../../../src/protocols/zookeeper/member.ts";
import { sourceListOf } from "../../../src/protocols/zookeeper/registrations.ts";
import { type Picture, readSets } from "../../../src/protocols/zookeeper/sets.ts";
import { Znodes } from "../../../src/protocols/zookeeper/znodes.ts";
import { testDirectory } from "../../support/directory.ts";
import { fakeZooKeeper } from "../../simulated/zookeeper.ts";

interface TreeNode {
  readonly path: string;
  readonly data: string;
  readonly ephemeral: boolean;
}
interface Case {
  readonly name: string;
  readonly tree?: readonly TreeNode[];
  readonly members?: readonly string[];
  readonly targets?: readonly { readonly address: string; readonly labels: Readonly<Record<string, string>> }[] | number;
  readonly paths?: readonly string[];
  readonly events?: readonly unknown[];
  readonly same?: boolean;
  readonly table?: readonly { readonly asked_s: number }[];
  readonly after?: readonly (readonly [number, readonly string[]])[];
}
const CASES = JSON.parse(readFileSync(new URL("serverset-cases.json", import.meta.url), "utf8")) as readonly Case[];
const SET = "/twitter/service/role/prod/web";

/** What is stated of a tree; a name of a member stands for one at an address of its number. */
async function stated(tree: readonly TreeNode[], path = SET): Promise<readonly string[]> {
  return (await listOf(tree, path)).list.map(
    ({ name, external, port, labels }) =>
      `${name} ${external?.node.address}:${port}${labels["shard"] === undefined ? "" : ` #${labels["shard"]}`}`,
  );
}
async function listOf(tree: readonly TreeNode[], path = SET): Promise<ReturnType<typeof sourceListOf>> {
  const zk = fakeZooKeeper();
  for (const { path: at, data } of tree) zk.put(at, data);
  return await listFrom(await open(zk), path);
}
async function open(zk: ReturnType<typeof fakeZooKeeper>): Promise<ZooKeeper> {
  return await zk.open({ servers: "fake", sessionTimeoutMs: 1000, clock: systemClock });
}
async function pictureFrom(client: ZooKeeper, path: string): Promise<Picture> {
  const config = configureZooKeeper({ sets: path });
  return await readSets(config?.sets ?? [], new Znodes(client, () => {}), undefined);
}
async function listFrom(client: ZooKeeper, path = SET): Promise<ReturnType<typeof sourceListOf>> {
  return sourceListOf(await pictureFrom(client, path), testDirectory(systemClock).view(), new Map(), 0);
}
const members = (names: readonly string[]): readonly TreeNode[] =>
  names.map((name) => ({
    path: `${SET}/${name}`,
    data: `{"serviceEndpoint":{"host":"10.0.0.${Number(name.slice(-4))}","port":80},"status":"ALIVE"}`,
    ephemeral: true,
  }));
const named = (names: readonly string[]): readonly string[] =>
  names.map((name) => `web 10.0.0.${Number(name.slice(-4))}:80`);
async function codeOf(work: Promise<unknown>): Promise<string> {
  return await work.then(
    () => "none",
    (error: TrilithError) => error.code,
  );
}
const holdsMembers = async ({ members: names = [] }: Case): Promise<void> => {
  for (const name of names) expect(isMemberName(name)).toBe(true);
  expect(await stated(members(names))).toEqual(named(names));
};
/** A session that is over or resumed: which members stand afterwards, as the same client sees it. */
const session = async (lost: boolean): Promise<void> => {
  const zk = fakeZooKeeper();
  const client = await open(zk);
  await client.makePath(SET);
  const path = await client.createNumbered(`${SET}/member_`, members(["member_0000000001"])[0]?.data ?? "");
  if (lost) zk.expire();
  else {
    zk.cut();
    zk.back();
  }
  expect(zk.data(path) === undefined).toBe(lost);
  const next = await client.createNumbered(`${SET}/member_`, "{}");
  expect(next).toBe(`${SET}/member_0000000001`);
};

const HELD: Readonly<Record<string, (given: Case) => Promise<void>>> = {
  async "three members joined"({ tree = [] }) {
    expect(await stated(tree)).toEqual([
      "web 10.0.0.1:8081 #0",
      "web-aurora 10.0.0.1:9081 #0",
      "web-http 10.0.0.1:8080 #0",
      "web 10.0.0.2:8082 #1",
      "web 10.0.0.3:8083",
    ]);
    // What is written here is byte for byte what kazoo's members wrote, metadata aside.
    for (const { data } of tree.filter(({ path }) => isMemberName(path.slice(SET.length + 1))))
      expect(encodeMember(decodeMember(Buffer.from(data)))).toBe(data);
    const rule = configureZooKeeper({ announce: { service: "web", path: SET } })?.announce[0];
    const instance = {
      ...{ id: "w", name: "web", node: "n", tags: [], address: "10.0.0.2", port: 8082, labels: { shard: "1" } },
      origin: { source: "api", authority: "first-hand" as const },
    };
    const [made] = planMembers([{ instance, address: "" }], rule as never, { nodeId: "id", loopback: false }).wanted;
    expect({ ...JSON.parse(made?.text ?? ""), metadata: undefined }).toEqual({
      ...JSON.parse(tree.at(-2)?.data ?? ""),
      metadata: undefined,
    });
  },
  async "stat of a member"() {
    const zk = fakeZooKeeper();
    const client = await open(zk);
    await client.makePath(SET);
    const path = await client.createNumbered(`${SET}/member_`, "{}");
    expect((await client.get(path))?.stat).toEqual({ owner: client.session(), version: 0 });
  },
  "clean close (session closed) -> node gone": holdsMembers,
  "rejoin of the same endpoint gets the next number, numbers are never reused": async (given) => {
    await holdsMembers(given);
    const same = members(["member_0000000001"])[0]?.data ?? "";
    // While the old one is still there, they are one instance: that of the later member.
    const { list } = await listOf([
      { path: `${SET}/member_0000000001`, data: same, ephemeral: true },
      { path: `${SET}/member_0000000003`, data: same, ephemeral: true },
    ]);
    expect(list.map(({ foreignId }) => foreignId)).toEqual([`${SET}/member_0000000003`]);
  },
  "SIGKILL of the client, session timeout asked 2 s": () => session(true),
  "SIGKILL of the client, session timeout asked 4 s": () => session(true),
  "SIGKILL of the client, session timeout asked 8 s": () => session(true),
  async "session timeout granted (tickTime 500: limits 2x..20x tickTime = 1..10 s)"({ table = [] }) {
    for (const { asked_s: asked } of table.filter((one) => one.asked_s >= 1))
      expect(configureZooKeeper({ sets: "/a", session_timeout: `${asked}s` })?.sessionMs).toBe(asked * 1000);
  },
  "frozen client (SIGSTOP) longer than its session: node gone, after SIGCONT session expired, client has to create a NEW node":
    async (given) => {
      await holdsMembers(given);
      await session(true);
    },
  "frozen for 4 s with an 8 s session: same node stays": () => session(false),
  "ZooKeeper server restart (1 s down): sessions are resumed, same nodes": () => session(false),
  async "ZooKeeper server down 9 s with 4 s sessions: the expiry clock starts again at server start; a client that reconnects in time keeps its node, others lose theirs and rejoin with a new number (client back-off)"({
    after = [],
  }) {
    expect(after.some(([, names]) => names.length === 0)).toBe(true);
    for (const [, names] of after) expect(await stated(members(names))).toEqual(named(names));
  },
  async "child watch fires once"({ events = [] }) {
    expect(events).toHaveLength(1);
    const zk = fakeZooKeeper();
    zk.put(SET, "");
    let rung = 0;
    const znodes = new Znodes(await open(zk), () => rung++);
    await znodes.names(SET);
    zk.put(`${SET}/member_0000000000`, "");
    zk.put(`${SET}/member_0000000001`, "");
    expect(rung).toBe(1);
    // So it is set anew with each reading.
    expect(await znodes.names(SET)).toHaveLength(2);
    zk.put(`${SET}/member_0000000002`, "");
    expect(rung).toBe(2);
  },
  async "foreign and malformed children"({ tree = [] }) {
    const { list, complaints } = await listOf(tree);
    expect(list.map(({ external, port }) => `${external?.node.address}:${port}`)).toEqual(["10.0.0.2:8082"]);
    expect(complaints?.map(({ about }) => about.slice(SET.length + 1))).toEqual([
      "member_0000000011",
      "member_0000000012",
      "member_0000009999",
    ]);
  },
  async "child below an ephemeral node"({ tree }) {
    // So a member's znode has no children, and nothing asks for them.
    expect(tree).toBeUndefined();
    const zk = fakeZooKeeper();
    for (const { path, data } of members(["member_0000000001"])) zk.put(path, data);
    await listFrom(await open(zk));
    expect(zk.asked.filter((line) => line.startsWith("children "))).toEqual([`children ${SET}`]);
  },
  async "delete of a non-empty parent"() {
    // So nothing here removes a set: the parents remain, as with every other writer.
    const zk = fakeZooKeeper();
    zk.put(`${SET}/member_0000000001`, "");
    expect(zk.names("/twitter/service/role/prod")).toEqual(["web"]);
  },
  async "create of an existing node"() {
    const client = await open(fakeZooKeeper());
    await client.create("/a", "", "persistent");
    expect(await codeOf(client.create("/a", "", "persistent"))).toBe("conflict");
  },
  async "Prometheus 2.42 serverset_sd reads it"({ targets }) {
    if (!Array.isArray(targets)) throw new Error("no targets");
    // The same trees, the same endpoints: of Prometheus' targets those that are ALIVE and can be reached.
    const tree = targets.map(({ labels: l }) => {
      const additional = Object.fromEntries(
        Object.keys(l).flatMap((key) => {
          const [, name = ""] = /^__meta_serverset_endpoint_host_(.*)$/.exec(key) ?? [];
          const port = Number(l[`__meta_serverset_endpoint_port_${name}`]);
          return name === "" ? [] : [[name, { host: l[key], port }]];
        }),
      );
      const [host, port] = [l["__meta_serverset_endpoint_host"], Number(l["__meta_serverset_endpoint_port"])];
      const main = host === undefined ? {} : { serviceEndpoint: { host, port } };
      const status = l["__meta_serverset_status"] ?? "";
      const shard = Number(l["__meta_serverset_shard"]);
      const data = JSON.stringify({ ...main, additionalEndpoints: additional, status, shard });
      return { path: l["__meta_serverset_path"] ?? "", data, ephemeral: true };
    });
    const { list } = await listOf(tree);
    const alive = targets.filter((one) => one.labels["__meta_serverset_status"] === "ALIVE");
    expect(list.filter(({ name }) => name === "web").map((r) => `${r.external?.node.address}:${r.port}`)).toEqual(
      alive
        .toSorted((a, b) => ((a.labels["__meta_serverset_path"] ?? "") < (b.labels["__meta_serverset_path"] ?? "") ? -1 : 1))
        .map(({ address }) => address),
    );
  },
  async "Prometheus serverset_sd on a parent path (recursive)"({ paths = [] }) {
    const tree = members(paths.map((path) => path.slice(SET.length + 1)));
    expect(await stated(tree, "/twitter/service/role/prod/*")).toEqual(
      named(paths.map((path) => path.slice(SET.length + 1))),
    );
    expect(await stated(tree, "/twitter/*/*/*/*")).toHaveLength(paths.length);
  },
  async "Prometheus serverset_sd with one malformed member"() {
    const bad = { path: `${SET}/member_0000000099`, data: "not json", ephemeral: true };
    expect(await stated([...members(["member_0000000001"]), bad])).toEqual(["web 10.0.0.1:80"]);
  },
  async "Prometheus serverset_sd on a missing path"() {
    // It is no error here: the set may come.
    const zk = fakeZooKeeper();
    const picture = await pictureFrom(await open(zk), "/nosuch");
    expect(picture.sets).toMatchObject([{ there: false, members: [] }]);
    expect(picture.unread.length).toBe(0);
  },
  async "all left: parents remain"({ tree = [] }) {
    expect(await stated(tree)).toEqual([]);
    expect((await pictureFrom(await open(withTree(tree)), SET)).sets).toMatchObject([{ there: true }]);
  },
};

function withTree(tree: readonly TreeNode[]): ReturnType<typeof fakeZooKeeper> {
  const zk = fakeZooKeeper();
  for (const { path, data } of tree) zk.put(path, data);
  return zk;
}

describe("what was observed of server sets", () => {
  it("is held case by case", () => {
    expect(Object.keys(HELD).sort()).toEqual(CASES.map(({ name }) => name).sort());
  });
  it.each(CASES.map((one) => [one.name, one] as const))("%s", async (name, given) => {
    await HELD[name]?.(given);
  });
});
