// The LocalAPI of a real tailscaled against what was recorded of it: every state of a node and its peers, and the requests it refuses.
import { readdirSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { createHttp } from "../../src/base/http.ts";
import { createLocalApi, readStatus, troubleOf } from "../../src/base/tailnet.ts";
import { eventually, ownFolder } from "../support/peers.ts";
import {
  haveTailnet,
  startTailnet,
  type Tailnet,
  type TailnetNode,
  type TailnetPrograms,
  type TailnetStatus,
  tailnetPrograms,
} from "../support/tailnet.ts";

const here = await haveTailnet();
const golden = resolve(import.meta.dirname, "../golden/minidisc");
const recorded = (name: string): TailnetStatus =>
  JSON.parse(readFileSync(join(golden, "status", `${name}.json`), "utf8")) as TailnetStatus;

/** Keys that come and go with the moment (traffic, paths, a peer's own news); everything else must be there as it was recorded. */
const PASSING = new Set([
  "KeyExpiry",
  "Capabilities",
  "CapMap",
  "PeerAPIURL",
  "sshHostKeys",
  "Addrs",
  "CurAddr",
  "Relay",
]);

/** A status as its form: keys with the types of their values, those of all peers as one, and the words that Minidisc lives by as they are. */
function form(value: unknown, key = ""): unknown {
  if (key === "BackendState" || key === "TUN" || key === "Online") return value;
  if (key === "TailscaleIPs")
    return value === null ? null : (value as string[]).map((ip) => (ip.includes(":") ? "v6" : "v4"));
  if (Array.isArray(value)) return "array";
  if (typeof value !== "object" || value === null) return value === null ? "null" : typeof value;
  const entries = Object.entries(value).filter(([name]) => !PASSING.has(name));
  if (key === "Peer") return Object.values(value).map((peer) => form(peer));
  if (key === "User") return "object";
  return Object.fromEntries(entries.map(([name, one]) => [name, form(one, name)]));
}

/** The form, with the peers in the order of whether they are online. */
function formOf(status: TailnetStatus): unknown {
  const whole = form(status) as { Peer: { Online: boolean }[] | "null" };
  if (whole.Peer !== "null") whole.Peer.sort((a, b) => Number(a.Online) - Number(b.Online));
  return whole;
}

/** Sends bytes as they are and hands back all that comes. */
function raw(socketPath: string, bytes: Buffer): Promise<string> {
  return new Promise((done, failed) => {
    let text = "";
    const socket = connect(socketPath, () => socket.write(bytes));
    socket.setEncoding("utf8");
    socket.on("data", (chunk: string) => {
      text += chunk;
    });
    socket.once("error", failed);
    socket.once("close", () => done(text));
  });
}

/** The status line and the headers that do not tell time, size or version. */
const headOf = (reply: string): string[] =>
  reply
    .split("\r\n\r\n", 1)[0]!
    .split("\r\n")
    .filter((line) => !/^(Date|Content-Length|Transfer-Encoding|Tailscale-Version):/i.test(line));

describe.skipIf(!here)("the LocalAPI of a real tailscaled", { timeout: 240_000 }, () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let built: TailnetPrograms;
  let net: Tailnet | undefined;
  let tailnets = 0;
  /** How many of its nodes are logged in, see each other, and have the addresses that they got first. */
  let together = 0;
  let first: TailnetNode;
  let third: TailnetNode;
  const http = createHttp();
  const read = (node: TailnetNode): ReturnType<ReturnType<typeof createLocalApi>["status"]> =>
    createLocalApi(http, node.socketPath).status();

  beforeAll(async () => {
    folder = await ownFolder("tailnet-localapi");
    built = await tailnetPrograms(folder.path);
  }, 600_000);
  /** Where a try before this one did who knows what: a new tailnet. */
  beforeEach(async ({ task }) => {
    if ((task.result?.retryCount ?? 0) > 0) await anew();
  }, 120_000);
  const anew = async (): Promise<void> => {
    await net?.stop();
    net = await startTailnet(join(folder.path, `tailnet-${++tailnets}`), { up: false, built });
    together = 0;
    first = net.nodes[0]!;
    third = net.nodes[2]!;
  };
  const online = (): Promise<unknown> =>
    eventually(
      "all others are online",
      async () => {
        const peers = Object.values((await first.status()).Peer ?? {});
        return peers.length === together - 1 && peers.every(({ Online }) => Online);
      },
      60_000,
    );
  /** A tailnet of so many nodes: the one of the tests before, which it grows, or a new one. */
  const reach = async (count: number): Promise<void> => {
    if (net === undefined || together > count) await anew();
    for (const node of net?.nodes.slice(together, count) ?? []) {
      if (!started.has(node)) await node.startDaemon();
      started.add(node);
      await node.up();
      together++;
    }
    if (count > 1) await online();
  };
  const started = new WeakSet<TailnetNode>();
  afterAll(async () => {
    await http.close();
    await net?.stop();
    await folder?.remove();
  });

  test("a fresh node needs a login, and so it was recorded", async () => {
    await anew();
    await first.startDaemon();
    started.add(first);
    const status = await eventually("NeedsLogin", async () => {
      const now = await first.status();
      return now.BackendState === "NeedsLogin" && now;
    });
    expect(status.TailscaleIPs).toBeNull();
    expect(status.Peer).toBeNull();
    const was = recorded("needslogin");
    expect(formOf(status)).toEqual(formOf({ ...was, TUN: status.TUN }));
    expect(troubleOf(await read(first), "S")).toBe('tailscaled at S needs a login: "tailscale up"');
  });

  test("alone: Running, Peer null", async () => {
    await reach(1);
    expect(first.address).toBe("100.64.0.1");
    await eventually("it stands as recorded", async () => {
      expect(formOf(await first.status())).toEqual(formOf(recorded("running-nopeers")));
      return true;
    });
    expect(await read(first)).toMatchObject({ state: "Running", tun: true, own: { ipv4: "100.64.0.1" }, peers: [] });
  });

  test("three nodes see each other online", async () => {
    await reach(3);
    await eventually("they stand as recorded", async () => {
      expect(formOf(await first.status())).toEqual(formOf(recorded("running-3nodes")));
      return true;
    });
    const tailnet = await read(first);
    expect(tailnet.peers.map(({ ipv4, online, name }) => [ipv4, online, name])).toEqual([
      ["100.64.0.2", true, "mdnode2"],
      ["100.64.0.3", true, "mdnode3"],
    ]);
    expect(tailnet.own.ipv6).toMatch(/^fd7a:115c:a1e0:/);
    expect(troubleOf(tailnet, "S")).toBeUndefined();
  });

  test("requests are taken and refused as recorded", async () => {
    await reach(3);
    const names = readdirSync(join(golden, "localapi"))
      .filter((name) => name.endsWith(".req"))
      .map((name) => name.slice(0, -4));
    expect(names.length).toBeGreaterThan(10);
    for (const name of names) {
      const answer = await raw(first.socketPath, readFileSync(join(golden, "localapi", `${name}.req`)));
      const was = readFileSync(join(golden, "localapi", `${name}.resp`), "utf8");
      expect(headOf(answer), name).toEqual(headOf(was));
    }
  });

  test("a peer that goes down, and one that is killed, is offline with its addresses", async () => {
    await reach(3);
    const offline = async (): Promise<TailnetStatus> =>
      eventually(
        "the third is offline",
        async () => {
          const now = await first.status();
          return Object.values(now.Peer ?? {}).some(({ HostName, Online }) => HostName === "mdnode3" && !Online) && now;
        },
        60_000,
      );
    await third.tailscale("down");
    expect(formOf(await offline())).toEqual(formOf(recorded("peer-down")));

    // The node itself: Stopped, addresses and peers are still told, the interface has lost the address.
    const stopped = await third.status();
    expect(formOf({ ...stopped, Peer: null })).toEqual(formOf({ ...recorded("self-stopped"), Peer: null }));
    expect(stopped.TailscaleIPs?.[0]).toBe("100.64.0.3");
    expect(Object.keys(stopped.Peer ?? {})).toHaveLength(2);
    expect((await third.run(["ip", "-4", "addr", "show"])).output).not.toContain("100.64.0.3");
    expect(troubleOf(await read(third), "S")).toBe('tailscaled at S is stopped: "tailscale up" starts it');

    await third.up();
    expect(third.address).toBe("100.64.0.3");
    await online();
    await third.killDaemon("SIGKILL");
    expect(formOf(await offline())).toEqual(formOf(recorded("peer-killed-offline")));
    await expect(read(third)).rejects.toMatchObject({ code: "unavailable" });

    // It knows who it was.
    await third.startDaemon();
    await eventually("back by itself", async () => (await third.status()).BackendState === "Running", 60_000);
    expect((await third.status()).TailscaleIPs?.[0]).toBe("100.64.0.3");
  });

  test("logged out, it needs a login again; logged in anew, it has another address", async () => {
    await reach(3);
    // Its address is another one from here on.
    together = 2;
    await third.tailscale("logout");
    await eventually("NeedsLogin", async () => (await third.status()).BackendState === "NeedsLogin");
    expect(troubleOf(await read(third), "S")).toMatch(/needs a login/);
    await third.up();
    expect(third.address).toBe("100.64.0.4");
  });

  test("userspace networking: no TUN, and the address cannot be bound", async () => {
    if (third === undefined || together < 2) await reach(3);
    together = 2;
    await third.killDaemon("SIGTERM");
    await third.startDaemon({ userspace: true });
    const status = await eventually("running", async () => {
      const now = await third.status();
      return now.BackendState === "Running" && now;
    });
    expect(status.TUN).toBe(false);
    expect((await read(third)).tun).toBe(false);
    const bound = await third.run([
      process.execPath,
      "-e",
      `require("net").createServer().on("error", (e) => console.log(e.code)).listen(28004, "${third.address}")`,
    ]);
    expect(bound.output.trim()).toBe("EADDRNOTAVAIL");
  });

  test("every recorded status is read", () => {
    for (const name of readdirSync(join(golden, "status")))
      expect(readStatus(readFileSync(join(golden, "status", name), "utf8")).state).toMatch(
        /^(Running|NeedsLogin|Stopped)$/,
      );
  });
});
