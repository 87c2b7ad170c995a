// What stands in the hook's table: what a caller on this host may have, by names; only what changed is looked at again.
import { beforeEach, describe, expect, test } from "vitest";
import { goneChange, nodeChange, serviceChange } from "../../../test/support/directory.ts";
import { magicInMemory, type World, world } from "../../../test/support/lookup.ts";
import type { Magic } from "../../contracts/magic.ts";
import { type Change, keyOf } from "../../model/record.ts";
import type { TableService } from "../../wire/hook-table.ts";
import { Composer } from "./composer.ts";

let host: World;
let magic: Magic;
let composer: Composer;
let asked: string[];
let suspects: Set<string>;
let addresses: Map<string, readonly string[]>;
let labels: Record<string, string>;
let own: Set<string>;
let seen = 0;

const never = new AbortController().signal;
/** Looks at what changed; true where something is to be written. */
async function look(more: readonly string[] = []): Promise<boolean> {
  const view = host.directory.view();
  const names = composer.moved(view, seen);
  for (const name of more) names.add(name);
  seen = view.index;
  const changed = await composer.look(names, () => host.directory.view(), never);
  composer.keep(composer.unkept());
  return changed;
}
const of = (subject: string): TableService | undefined => composer.table().find((each) => each.subject === subject);
const places = (subject: string): string[] | undefined =>
  of(subject)?.backends.map(({ address, port }) => `${address}:${port}`);

beforeEach(async () => {
  host = await world();
  magic = await magicInMemory();
  asked = [];
  suspects = new Set();
  addresses = new Map();
  labels = {};
  own = new Set(["10.9.0.1"]);
  seen = 0;
  composer = make("dc1");
  await host.directory.write([nodeChange("away", "10.2.0.1")]);
});

function make(datacenter: string): Composer {
  const zone = { domain: "consul", datacenter };
  return new Composer({
    clock: host.clock,
    lookup: {
      resolveNow(query) {
        asked.push(query.service);
        return host.lookup.resolveNow(query);
      },
    },
    magic,
    own: () => ({ name: "home", labels }),
    ownAddresses: () => (address) => own.has(address),
    zone: () => zone,
    defaults: () => ({ policy: "p2c", prefetch: 0, prefetchIdleMs: 10_000, tryMs: 1_000, locality: true }),
    isSuspect: (at, port) => suspects.has(`${at}:${port}`),
    addressesOf: (hostname) => addresses.get(hostname) ?? [],
  });
}

describe("a service", () => {
  test("stands with its tags, each with its own backends and names, in the order of the slots", async () => {
    await host.directory.write([
      serviceChange("home", "w1", "Web", { tags: ["v1", "Primary"], address: "10.9.0.1", port: 8001 }),
      serviceChange("away", "w2", "web", {
        tags: ["v1"],
        address: "10.9.0.2",
        port: 8002,
        weights: { passing: 5, warning: 1 },
      }),
    ]);
    expect(await look()).toBe(true);
    expect(
      composer
        .table()
        .map(({ subject }) => subject)
        .sort(),
    ).toEqual(["web", "web/primary", "web/v1"]);
    const slots = composer.table().map(({ slot }) => slot);
    expect(slots).toEqual(slots.toSorted((a, b) => a - b));
    expect(of("web")).toEqual({
      slot: magic.of({ service: "web" }).slot,
      subject: "web",
      names: expect.arrayContaining(["web.service.consul", "web.connect.consul"]),
      policy: "p2c",
      panic: false,
      held: false,
      tryMs: 1_000,
      backends: [
        { address: "10.9.0.2", port: 8002, weight: 5, tier: 2, suspect: false },
        { address: "10.9.0.1", port: 8001, weight: 1, tier: 0, suspect: false },
      ],
    });
    expect(places("web/v1")).toEqual(["10.9.0.2:8002", "10.9.0.1:8001"]);
    expect(places("web/primary")).toEqual(["10.9.0.1:8001"]);
    expect(of("web/primary")?.names).toContain("primary.web.service.consul");
  });

  test("of Consul's servers has the caller's port, one of anybody else's its own", async () => {
    const server = { raft_version: "3", version: "1.21.0" };
    await host.directory.write([
      serviceChange("home", "consul", "consul", { address: "10.9.0.1", port: 8300, labels: server }),
      serviceChange("away", "consul", "consul", { address: "10.9.0.2", port: 8500 }),
      serviceChange("home", "raft", "raft", { address: "10.9.0.1", port: 8300, labels: server }),
    ]);
    await look();
    expect(places("consul")?.sort()).toEqual(["10.9.0.1:0", "10.9.0.2:8500"]);
    expect(places("raft")).toEqual(["10.9.0.1:8300"]);
  });

  test("is not looked at again unless it changed, and what changed nothing is not written", async () => {
    await host.directory.write([
      serviceChange("home", "w1", "web", { port: 1 }),
      serviceChange("home", "a1", "api", { port: 2 }),
    ]);
    await look();
    asked = [];
    expect(await look()).toBe(false);
    expect(asked).toEqual([]);
    await host.directory.write([serviceChange("home", "w2", "web", { port: 3 })]);
    expect(await look()).toBe(true);
    expect(asked).toEqual(["web"]);
    expect(of("web")?.names).toContain("web.service.consul");
    const before = composer.table();
    // What a label says that has nothing to do with connecting changes nothing here.
    await host.directory.write([serviceChange("home", "w2", "web", { port: 3, labels: { team: "x" } })]);
    expect(await look()).toBe(false);
    expect(composer.table()).toBe(before);
  });

  test("without anybody to answer stays, and goes when nobody knows it any more", async () => {
    await host.directory.write([serviceChange("home", "w1", "web", { port: 1, draining: true })]);
    await look();
    expect(of("web")).toMatchObject({ backends: [] });
    await host.directory.write([goneChange("home", "w1", { code: "deregistered", text: "", confirmed: true })]);
    expect(await look()).toBe(true);
    expect(of("web")).toBeUndefined();
    expect(composer.names()).toEqual([]);
    // It comes back under its old address.
    const { slot } = magic.of({ service: "web" });
    await host.directory.write([serviceChange("home", "w1", "web", { port: 1 })]);
    await look();
    expect(of("web")?.slot).toBe(slot);
    expect(of("web")?.names).toHaveLength(5);
  });

  test("says in its labels how it is to be connected to, and what cannot be understood is told", async () => {
    await host.directory.write([
      serviceChange("home", "w1", "web", {
        tags: ["x"],
        port: 1,
        labels: {
          "trilith.balance": "sticky",
          "trilith.prefetch": "4",
          "trilith.try": "250ms",
          "trilith.locality": "off",
        },
      }),
      serviceChange("home", "a1", "api", { port: 2, labels: { "trilith.balance": "fair" } }),
    ]);
    await look();
    expect(of("web")).toMatchObject({ policy: "sticky", prefetch: { most: 4, idleMs: 10_000 }, tryMs: 250 });
    expect(of("web/x")).toMatchObject({ policy: "sticky" });
    expect(of("web")?.backends.map(({ tier }) => tier)).toEqual([2]);
    expect(of("api")?.policy).toBe("p2c");
    expect(composer.complaints()).toEqual([expect.stringMatching(/^api: label trilith.balance=fair: expected one of/)]);
  });

  test("is near in this host's zone", async () => {
    labels = { zone: "a" };
    await host.directory.write([
      {
        op: "put",
        table: "node",
        key: keyOf.node("near"),
        value: {
          id: "",
          name: "near",
          address: "10.3.0.1",
          datacenter: "dc1",
          taggedAddresses: {},
          labels: { zone: "a" },
        },
      },
      serviceChange("near", "w1", "web", { address: "10.3.0.1", port: 1 }),
      serviceChange("away", "w2", "web", { address: "10.2.0.1", port: 1 }),
      // What an instance says of itself counts more than what its node says.
      serviceChange("near", "w3", "web", { address: "10.3.0.3", port: 1, labels: { zone: "b" } }),
      serviceChange("away", "w4", "web", {
        address: "10.2.0.4",
        port: 1,
        foreign: { Locality: { Region: "r", Zone: "a" } },
      }),
      serviceChange("away", "w5", "web", { address: "10.2.0.5", port: 1, foreign: { Locality: null } }),
    ]);
    await look();
    expect(Object.fromEntries(of("web")!.backends.map(({ address, tier }) => [address, tier]))).toEqual({
      "10.3.0.1": 1,
      "10.2.0.1": 2,
      "10.3.0.3": 2,
      "10.2.0.4": 1,
      "10.2.0.5": 2,
    });
  });

  test("registered here with somebody else's address is not this host's; its own word about its zone counts", async () => {
    labels = { zone: "a" };
    addresses.set("db.example", ["10.5.0.1"]);
    const at = (id: string, address: string, more = {}): Change =>
      serviceChange("home", id, "db", { address, port: 5432, ...more });
    await host.directory.write([
      at("d1", ""),
      at("d2", "10.9.0.1"),
      at("d3", "10.4.0.1"),
      at("d4", "10.4.0.2", { labels: { zone: "a" } }),
      at("d5", "10.4.0.3", { addresses: [{ host: "10.4.0.3", port: 5432, reach: "lan" }] }),
      at("d6", "db.example"),
    ]);
    await look();
    const tiers = (): Record<string, number> =>
      Object.fromEntries(of("db")!.backends.map(({ address, tier }) => [address, tier]));
    expect(tiers()).toEqual({
      "10.1.0.1": 0,
      "10.9.0.1": 0,
      "10.4.0.1": 2,
      "10.4.0.2": 1,
      "10.4.0.3": 0,
      "10.5.0.1": 2,
    });
    // An address that comes to this host makes it this host's, at the next look.
    own.add("10.4.0.1");
    await look(["db"]);
    expect(tiers()["10.4.0.1"]).toBe(0);
  });

  test("by UDP or TCP alone is marked so", async () => {
    await host.directory.write([
      serviceChange("home", "u", "dns", { tags: ["udp"], port: 53 }),
      serviceChange("home", "v", "dns", { tags: ["tcp"], port: 54 }),
      serviceChange("home", "w", "dns", { tags: [], port: 55 }),
    ]);
    await look();
    expect(of("dns")?.backends.map(({ port, only }) => [port, only])).toEqual([
      [53, "udp"],
      [54, "tcp"],
      [55, undefined],
    ]);
  });

  test("whose name no program can look up is left out", async () => {
    await host.directory.write([serviceChange("home", "w1", "two words", { port: 1 })]);
    expect(await look()).toBe(false);
    expect(composer.table()).toEqual([]);
  });
});

describe("backends", () => {
  test("that the agent found refusing are suspect as soon as it rings", async () => {
    await host.directory.write([serviceChange("home", "w1", "web", { address: "10.9.0.1", port: 1 })]);
    await look();
    suspects.add("10.9.0.1:1");
    expect(composer.servicesAt("10.9.0.1", 1)).toEqual(["web"]);
    expect(composer.servicesAt("10.9.0.1", 2)).toEqual([]);
    expect(await look(["web"])).toBe(true);
    expect(of("web")?.backends[0]?.suspect).toBe(true);
  });

  test("that are host names stand with the addresses of these, and with none while there are none", async () => {
    await host.directory.write([serviceChange("away", "w1", "db", { address: "db.example.test", port: 5432 })]);
    await look();
    expect(places("db")).toEqual([]);
    expect([...composer.hostnames()]).toEqual(["db.example.test"]);
    addresses.set("db.example.test", ["192.0.2.1", "2001:DB8::1", "fe80::1%eth0"]);
    expect(composer.servicesWith("db.example.test")).toEqual(["db"]);
    expect(await look(["db"])).toBe(true);
    expect(places("db")).toEqual(["192.0.2.1:5432", "2001:db8::1:5432"]);
  });

  test("that the guard holds stay, and are said to be held", async () => {
    await host.list("web", ["m1", "m2", "m3", "m4"]);
    await look();
    await host.list("web", ["m1"]);
    await look();
    expect(places("web")).toHaveLength(4);
    expect(of("web")?.held).toBe(true);
    expect(composer.held()).toEqual(["web"]);
    host.lookup.release("web");
    expect(await look(["web"])).toBe(true);
    expect(places("web")).toHaveLength(1);
    expect(composer.held()).toEqual([]);
  });
});

test("an address that is not yet written down for good is told to nobody", async () => {
  await host.directory.write([serviceChange("home", "w1", "web", { port: 1 })]);
  const view = host.directory.view();
  expect(await composer.look(composer.moved(view, 0), () => view, never)).toBe(true);
  expect(composer.table()).toEqual([]);
  composer.keep(composer.unkept());
  expect(composer.table()).toHaveLength(1);
  // Another backend does not make the address new.
  await host.directory.write([serviceChange("home", "w2", "web", { port: 2 })]);
  await composer.look(["web"], () => host.directory.view(), never);
  expect(composer.unkept()).toEqual([]);
  expect(places("web")).toHaveLength(2);
});

test("where two subjects could have one name, the first keeps it", async () => {
  composer = make("service");
  await host.directory.write([
    serviceChange("home", "s1", "service", { tags: ["web"], port: 1 }),
    serviceChange("home", "w1", "web", { port: 1 }),
  ]);
  await look();
  const clash = "web.service.service.consul";
  expect(composer.table().filter(({ names }) => names.includes(clash))).toHaveLength(1);
  const all = composer.table().flatMap(({ names }) => names);
  expect(new Set(all).size).toBe(all.length);
});
