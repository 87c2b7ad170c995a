// From what hosts advertise to registrations on external nodes: names, second copies, reasons, complaints.
import { describe, expect, it } from "vitest";
import type { Found, HostState, Listing } from "./hosts.ts";
import { type Known, sourceListOf } from "./registrations.ts";

const nobody: Known = { hasNode: () => false, hasService: () => false, isTaken: () => false };
const host = (n: number, more: Partial<HostState> = {}, name = `h${n}`): HostState => ({
  host: { name, dnsName: `${name}-${n}.tail.ts.net`, ipv4: `100.64.0.${n}`, online: true },
  own: false,
  address: `100.64.0.${n}`,
  followed: { kind: "plain", services: [], dropped: [], atMs: 0, delegates: [] },
  ageMs: 0,
  ...more,
});
const found = (n: number, name: string, more: Partial<Found> = {}): Found => ({
  name,
  labels: { env: "prod" },
  tags: [],
  address: `100.64.0.${n}`,
  port: 80,
  also: [],
  health: "passing",
  node: `h${n}`,
  nodeAddress: `100.64.0.${n}`,
  own: false,
  trilith: false,
  fresh: true,
  ageMs: 0,
  ...more,
});
const list = (listing: Listing, known = nobody, before: Parameters<typeof sourceListOf>[2] = []) =>
  sourceListOf(listing, known, before, 7);

describe("registrations of the tailnet", () => {
  it("stand on a node with the host's name and address, with an identity of their own", () => {
    const { list: all, authority } = list({ services: [found(1, "web")], hosts: [host(1)] });
    expect(authority).toBe("second-hand");
    expect(all).toMatchObject([
      {
        id: "web-100.64.0.1:80",
        foreignId: "100.64.0.1 100.64.0.1:80 web",
        external: { node: { name: "h1", address: "100.64.0.1" } },
        checks: [],
      },
    ]);
  });

  it("have a check where a Trilith tells the health, and every address", () => {
    const also = [{ host: "fd7a:115c:a1e0::1", port: 80 }];
    const [one] = list({
      services: [found(1, "web", { trilith: true, health: "warning", also })],
      hosts: [host(1)],
    }).list;
    expect(one?.checks).toMatchObject([{ kind: "none", initial: "warning" }]);
    expect(one?.addresses).toEqual([
      { host: "100.64.0.1", port: 80, reach: "tailnet", network: "100.64.0.0/10" },
      { host: "fd7a:115c:a1e0::1", port: 80, reach: "tailnet", network: "fd7a:115c:a1e0::/48" },
    ]);
  });

  it("use the unique name where two hosts, or a node of the directory, are called the same", () => {
    const twins = [host(1, {}, "box"), host(2, {}, "box")];
    const services = [found(1, "a", { node: "box" }), found(2, "b", { node: "box" })];
    const names = (known: Known) => list({ services, hosts: twins }, known).list.map((r) => r.external?.node.name);
    expect(names(nobody)).toEqual(["box-1", "box-2"]);
    expect(names({ ...nobody, isTaken: (name) => name === "box-1" })).toEqual(["box-1.tailnet", "box-2"]);
  });

  it("leave out what the directory has first-hand, and what is listed twice", () => {
    const services = [
      found(1, "web", { owner: "id-1" }),
      found(1, "web"),
      found(1, "web", { labels: {} }),
      found(1, "db"),
    ];
    const hosts = [host(1)];
    const known = {
      ...nobody,
      hasNode: (id: string) => id === "id-1",
      hasService: (_: string, name: string) => name === "db",
    };
    expect(
      list({ services, hosts }, known).list.map(({ name, labels }) => `${name} ${JSON.stringify(labels)}`),
    ).toEqual(['web {"env":"prod"}']);
  });

  it("say why one went: its host said so, is silent, offline, or left", () => {
    const before = list({ services: [found(1, "web")], hosts: [host(1)] }).list;
    const failing = { kind: "silent", text: "no answer", sinceMs: 0 } as const;
    const why = (hosts: HostState[]) => [...(list({ services: [], hosts }, nobody, before).gone ?? [])][0];
    const key = "h1/web-100.64.0.1:80";
    expect(why([host(1)])).toMatchObject([key, { code: "goodbye", confirmed: true, atMs: 7 }]);
    const silent = { kind: "plain", services: undefined, dropped: [], atMs: 0, delegates: [], failing } as const;
    expect(why([host(1, { followed: silent })])).toMatchObject([
      key,
      { code: "missing", confirmed: false, text: expect.stringContaining("no answer") },
    ]);
    const off = host(1, { followed: undefined });
    expect(why([{ ...off, host: { ...off.host, online: false } }])).toMatchObject([
      key,
      { confirmed: false, text: expect.stringContaining("offline") },
    ]);
    expect(why([])).toMatchObject([
      key,
      { confirmed: false, text: expect.stringContaining("not in the tailnet any more") },
    ]);
  });

  it("complain of entries that were dropped", () => {
    const followed = {
      kind: "plain",
      services: [],
      dropped: [{ about: "{}", text: "no name" }],
      atMs: 0,
      delegates: [],
    } as const;
    expect(list({ services: [], hosts: [host(1, { followed })] }).complaints).toEqual([
      { about: "h1 (100.64.0.1)", text: "an entry of its list is dropped: no name: {}" },
    ]);
  });
});
