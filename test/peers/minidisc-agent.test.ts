// Agents on a tailnet: what one host runs is found on all others and goes with it; down and up, other addresses, strangers, lost hosts.
import { execFile } from "node:child_process";
import { createServer as createWebServer } from "node:http";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { createHttp } from "../../src/base/http.ts";
import { systemNet } from "../../src/base/net.ts";
import { systemRandom } from "../../src/base/random.ts";
import { createPeer } from "../../src/protocols/minidisc/peer.ts";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import {
  type FakeTailscaled,
  fakeTailscaled,
  inside,
  listed,
  names,
  runInTailnet,
  startProcess,
} from "../support/minidisc.ts";
import { eventually, havePrograms, ownFolder } from "../support/peers.ts";

const run = promisify(execFile);
const ready = inside || (await havePrograms("unshare", "ip", "iptables"));
const suite = inside ? describe : (): void => {};

(inside ? (): void => {} : describe.skipIf(!ready))("on a tailnet", () => {
  it("passes", () => runInTailnet(import.meta.filename, 400_000), 410_000);
});

suite("agents on a tailnet", () => {
  /** What is undone after the running test, in reverse order. */
  const ending: (() => Promise<unknown> | unknown)[] = [];
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  const tailscaled: FakeTailscaled[] = [];
  const agents: RunningAgent[] = [];
  const hosts = [1, 2, 3, 4].map((n) => ({ name: `host${n}`, ip: `100.64.0.${n}`, ipv6: `fd7a:115c:a1e0::${n}` }));
  const ttl = { id: "", name: "", notes: "", kind: "ttl", detail: {}, intervalMs: 0, timeoutMs: 0, ttlMs: 600_000 };
  const service = (name: string, port: number, more: object = {}) => ({
    id: name,
    name,
    port,
    address: "",
    tags: [],
    labels: {},
    checks: [],
    ...more,
  });
  const a = () => (agents[0] as RunningAgent).trilith;
  const b = () => (agents[1] as RunningAgent).trilith;
  const seen = (trilith: typeof a, name: string) =>
    trilith()
      .lookup.resolveNow({ service: name })
      .endpoints.map(({ address, port }) => `${address}:${port}`)
      .sort()
      .join(" ");
  const state = (trilith: typeof a) =>
    trilith()
      .sources()
      .find(({ name }) => name === "minidisc");

  beforeAll(async () => {
    folder = await ownFolder("minidisc-agent");
    for (const own of hosts) {
      const fake = await fakeTailscaled(
        join(folder.path, own.name),
        own,
        hosts.filter((one) => one !== own),
      );
      tailscaled.push(fake);
    }
    for (const [i, node] of ["alpha", "beta"].entries())
      agents.push(await startAgent({ node, protocols: { minidisc: { socket: tailscaled[i]?.path } } }));
    await bothLead();
  });
  const bothLead = (): Promise<unknown> =>
    eventually("both lead", () => /leads/.test(state(a)?.text ?? "") && /leads/.test(state(b)?.text ?? ""), 40_000);
  /** As before every test, also where one ended in its middle: nobody has a service, and everybody the address that they began with. */
  afterEach(async () => {
    for (const end of ending.splice(0).reverse()) await end();
    for (const each of [a(), b()])
      for (const { id } of [...each.directory.view().list("service")].filter(
        ({ node, origin }) => node === each.self.node && origin.source === "api",
      ))
        await each.agent.deregister("api", id);
    for (const [i, own] of hosts.entries()) {
      const fake = tailscaled[i] as FakeTailscaled;
      fake.state = "Running";
      fake.tun = true;
      fake.own = own;
      fake.peers = hosts.filter((one) => one !== own);
    }
    await run("ip", ["addr", "replace", "100.64.0.1/32", "dev", "lo"]);
    await bothLead();
    for (const ip of ["100.64.0.1", "100.64.0.2"])
      await eventually(`${ip} tells nothing`, async () => (await listed(ip))?.length === 0, 40_000);
  }, 90_000);
  afterAll(async () => {
    await Promise.all(agents.map((each) => each.stop()));
    await Promise.all(tailscaled.map((each) => each.close()));
    await folder.remove();
  });

  it("finds what another runs, with labels, tags, health and IPv6, and no longer when it goes", async () => {
    await a().agent.register("api", service("web", 8080, { labels: { env: "prod" }, tags: ["blue", "zone=eu"] }));
    await eventually("web at beta", () => seen(b, "web") === "100.64.0.1:8080");
    const [endpoint] = b().lookup.resolveNow({ service: "web", tags: ["blue"], labels: { env: "prod" } }).endpoints;
    const { instance, node } = endpoint?.resident ?? {};
    expect(instance).toMatchObject({
      tags: ["blue", "zone=eu"],
      node: "host1",
      origin: { source: "minidisc", authority: "second-hand" },
    });
    expect({ ...instance?.labels }).toEqual({ env: "prod" });
    expect(node).toMatchObject({ external: true, address: "100.64.0.1" });
    expect(b().lookup.resolveNow({ service: "web", asker: "fd7a:115c:a1e0::2" }).endpoints[0]?.address).toBe(
      "fd7a:115c:a1e0::1",
    );
    // The original implementations see labels alone.
    expect(await listed("100.64.0.1")).toEqual([
      { name: "web", labels: { blue: "true", env: "prod", zone: "eu" }, addrPort: "100.64.0.1:8080" },
    ]);
    expect(await (await fetch(`${agents[1]?.url}/v1/trilith/why/web`)).text()).toContain(
      "md find web: 100.64.0.1:8080",
    );
    await a().agent.deregister("api", "web");
    await eventually("web is gone", () => seen(b, "web") === "");
    await eventually("why", () =>
      b()
        .agent.history("web")
        .some(({ text }) => /does not advertise "web" any more/.test(text)),
    );
  });

  it("tells only what is routable, of this host and reached from there, and nothing back", async () => {
    await a().agent.register("api", service("local", 81, { address: "127.0.0.1" }));
    await a().agent.register("api", service("lan", 82, { address: "192.0.2.7" }));
    await a().agent.register("api", service("sick", 83, { checks: [ttl] }));
    await a().agent.register("api", service("well", 84));
    await eventually("well at beta", () => seen(b, "well") === "100.64.0.1:84");
    expect(await names("100.64.0.1")).toBe("well");
    await a().agent.report("service:sick", { status: "warning", output: "so so" });
    await eventually("sick, too", () => seen(b, "sick") === "100.64.0.1:83");
    const [{ resident } = {}] = b().lookup.resolveNow({ service: "sick" }).endpoints;
    expect(resident?.checks.map(({ status }) => status)).toEqual(["warning"]);
    // What beta has from alpha is alpha's to tell, and alpha does not take its own for another's.
    expect(await names("100.64.0.2")).toBe("");
    expect(a().lookup.resolveNow({ service: "well" }).endpoints).toHaveLength(1);
    await a().agent.maintenance("well", true, "for a test");
    await eventually("well is away", () => seen(b, "well") === "");
    await a().agent.maintenance("well", false);
    await a().agent.drain("sick", true, { code: "draining", text: "for a test", confirmed: true, atMs: Date.now() });
    await eventually("well is back, sick is not", async () => (await names("100.64.0.1")) === "well");
  });

  it("finds what original implementations tell, on hosts of their own and on this one", async () => {
    const [, , third] = tailscaled as [FakeTailscaled, FakeTailscaled, FakeTailscaled];
    const go = await startProcess("go", third, "gold:90");
    const python = await startProcess("python", tailscaled[1] as FakeTailscaled, "serpent:91");
    try {
      await eventually("gold at alpha", () => seen(a, "gold") === "100.64.0.3:90", 30_000);
      await eventually("serpent at alpha", () => seen(a, "serpent") === "100.64.0.2:91", 30_000);
      // The process that shares beta's host is none of beta's own services, and told by nobody twice.
      await eventually("serpent at beta", () => seen(b, "serpent") === "100.64.0.2:91");
      await eventually("and told once", async () => (await names("100.64.0.2")) === "serpent");
      await go.kill();
      await python.kill();
      await eventually("serpent is gone", () => seen(a, "serpent") === "");
      await eventually("gold is gone", () => seen(a, "gold") === "", 30_000);
    } finally {
      await go.kill();
      await python.kill();
    }
  }, 90_000);

  it("keeps what a host told that cannot be reached, and has the truth when it can", async () => {
    await a().agent.register("api", service("far", 85));
    await eventually("far at beta", () => seen(b, "far") === "100.64.0.1:85");
    const peer = createPeer({
      clock: systemClock,
      random: systemRandom,
      net: systemNet,
      http: createHttp(),
      localApi: (tailscaled[1] as FakeTailscaled).path,
    });
    const stop = new AbortController();
    ending.push(async () => {
      stop.abort();
      await following;
      await peer.stop();
    });
    let latest: { name: string; fresh: boolean }[] = [];
    const following = (async () => {
      for await (const { services } of peer.follow(stop.signal)) latest = [...services];
    })();
    await eventually("far, fresh", () => latest.some(({ name, fresh }) => name === "far" && fresh));
    const drop = ["INPUT", "-d", "100.64.0.1", "-p", "tcp", "-j", "DROP"];
    await run("iptables", ["-A", ...drop]);
    try {
      await eventually("far, from before", () => latest.some(({ name, fresh }) => name === "far" && !fresh), 40_000);
      expect(seen(b, "far")).toBe("100.64.0.1:85");
      await a().agent.deregister("api", "far");
      await a().agent.register("api", service("near", 86));
    } finally {
      await run("iptables", ["-D", ...drop]);
    }
    await eventually("the truth", () => seen(b, "far") === "" && seen(b, "near") === "100.64.0.1:86", 30_000);
  }, 120_000);

  it("survives that tailscaled goes down and up, and comes back with another address", async () => {
    const [first] = tailscaled as [FakeTailscaled];
    await a().agent.register("api", service("still", 87));
    await eventually("still at beta", () => seen(b, "still") === "100.64.0.1:87");
    first.state = "Stopped";
    await run("ip", ["addr", "del", "100.64.0.1/32", "dev", "lo"]);
    await eventually("alpha says so", () => /is stopped: "tailscale up"/.test(state(a)?.text ?? ""));
    expect(state(a)?.ok).toBe(false);
    first.state = "NeedsLogin";
    await eventually("alpha says so", () => /needs a login/.test(state(a)?.text ?? ""));
    first.state = "Starting";
    await eventually("alpha says so", () => /is starting/.test(state(a)?.text ?? ""));
    // Running before the address is on the interface.
    first.state = "Running";
    await eventually("alpha says so", () => /no interface here carries the address/.test(state(a)?.text ?? ""));
    await run("ip", ["addr", "add", "100.64.0.1/32", "dev", "lo"]);
    await eventually("still is back", async () => (await names("100.64.0.1")) === "still");
    first.own = { ...first.own, ip: "100.64.0.9" };
    const second = tailscaled[1] as FakeTailscaled;
    second.peers = second.peers.map((each) => (each.name === "host1" ? { ...each, ip: "100.64.0.9" } : each));
    await eventually("still moved", async () => (await names("100.64.0.9")) === "still");
    await eventually("and nobody is where it was", async () => (await listed("100.64.0.1")) === undefined);
    await eventually("beta knows", () => seen(b, "still") === "100.64.0.9:87");
  }, 120_000);

  it("says that userspace networking has no address to listen on", async () => {
    const [, , , fourth] = tailscaled as [FakeTailscaled, FakeTailscaled, FakeTailscaled, FakeTailscaled];
    fourth.own = { name: "host4", ip: "100.64.0.44" };
    fourth.tun = false;
    const alpha = tailscaled[0] as FakeTailscaled;
    fourth.peers = [alpha.own];
    const agent = await startAgent({ node: "delta", protocols: { minidisc: { socket: fourth.path } } });
    const socks = await socksServer();
    const proxy = { host: "127.0.0.1", port: socks.port };
    const machine = { clock: systemClock, random: systemRandom, net: systemNet, http: createHttp() };
    const peer = createPeer({ ...machine, localApi: fourth.path, proxy });
    try {
      const text = () => agent.trilith.sources().find(({ name }) => name === "minidisc")?.text ?? "";
      await eventually("it says so", () => /userspace networking/.test(text()));
      // Others are found through tailscaled's proxy, if there is one.
      await a().agent.register("api", service("inside", 89));
      await eventually("inside", async () => (await peer.find("inside")).some(({ port }) => port === 89));
      expect(socks.asked).toContain(`${alpha.own.ip}:28004`);
    } finally {
      await agent.stop();
      await peer.stop();
      await socks.close();
    }
  }, 90_000);

  it("is harmed by no stranger on the port, and takes it when it is free", async () => {
    const silent: Socket[] = [];
    const stranger = createServer((socket) => silent.push(socket.on("error", () => {})));
    await new Promise<void>((listening) => stranger.listen(28_004, "100.64.0.5", listening));
    const leave = async (): Promise<void> => {
      for (const socket of silent) socket.destroy();
      if (stranger.listening) await new Promise((closed) => stranger.close(closed));
    };
    ending.push(leave);
    const fifth = await fakeTailscaled(join(folder.path, "host5"), { name: "host5", ip: "100.64.0.5" });
    const peer = createPeer({
      clock: systemClock,
      random: systemRandom,
      net: systemNet,
      http: createHttp(),
      localApi: fifth.path,
    });
    try {
      await peer.advertise({ name: "late", port: 88 });
      await eventually("it says so", () => /slow or hangs/.test(peer.state().text));
      const { stdout } = await run("ss", ["-Hltn", "src", "100.64.0.5"]);
      // The stranger's and this one's own, however often it has tried.
      expect(stdout.trim().split("\n")).toHaveLength(2);
      await leave();
      await eventually("it leads", async () => (await names("100.64.0.5")) === "late", 30_000);
    } finally {
      await peer.stop();
      await fifth.close();
    }
    expect((await run("ss", ["-Hltn", "src", "100.64.0.5"])).stdout).toBe("");
  }, 120_000);

  it("finds hosts that have IPv6 alone", async () => {
    const [seventh, eighth] = [7, 8].map((n) => ({ name: `host${n}`, ip: `fd7a:115c:a1e0::${n}` })) as [Six, Six];
    const theirs = await fakeTailscaled(join(folder.path, "host7"), seventh, [eighth]);
    const here = await fakeTailscaled(join(folder.path, "host8"), eighth, [seventh]);
    ending.push(
      () => theirs.close(),
      () => here.close(),
    );
    const leader = await startProcess("trilith", theirs, "six:80");
    ending.push(() => leader.kill());
    const delegate = await startProcess("trilith", theirs, "too:81");
    ending.push(() => delegate.kill());
    const peer = createPeer({
      clock: systemClock,
      random: systemRandom,
      net: systemNet,
      http: createHttp(),
      localApi: here.path,
    });
    ending.push(() => peer.stop());
    const told = async (): Promise<string> =>
      (await peer.list()).services.map(({ name, address, port }) => `${name} ${address} ${port}`).join();
    // The leader may hear of its delegate's list a moment after the delegate has its answer.
    await eventually("both", async () => (await told()) === "six fd7a:115c:a1e0::7 80,too fd7a:115c:a1e0::7 81");
  }, 60_000);

  it("takes no web server on the port for a leader, whatever it answers", async () => {
    const stranger = createWebServer((_, response) => response.end("<html>welcome</html>"));
    await new Promise<void>((listening) => stranger.listen(28_004, "100.64.0.6", listening));
    const sixth = await fakeTailscaled(join(folder.path, "host6"), { name: "host6", ip: "100.64.0.6" });
    const peer = createPeer({
      clock: systemClock,
      random: systemRandom,
      net: systemNet,
      http: createHttp(),
      localApi: sixth.path,
    });
    try {
      await peer.advertise({ name: "hidden", port: 88 });
      expect(peer.state()).toMatchObject({ ok: false, text: expect.stringContaining("is no Minidisc") });
    } finally {
      await peer.stop();
      await sixth.close();
      await new Promise((closed) => stranger.close(closed));
    }
  }, 60_000);
});

type Six = { readonly name: string; readonly ip: string };

/** A SOCKS5 proxy without authentication [RFC1928], as tailscaled has one; `asked` are the places it was asked for. */
async function socksServer(): Promise<{
  readonly port: number;
  readonly asked: readonly string[];
  close(): Promise<void>;
}> {
  const asked: string[] = [];
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => {
      socket.write(Uint8Array.of(5, 0));
      socket.once("data", (request: Buffer) => {
        const host = request.subarray(4, 8).join(".");
        const port = request.readUInt16BE(8);
        asked.push(`${host}:${port}`);
        const to = connect({ host, port }, () => {
          socket.write(Uint8Array.of(5, 0, 0, 1, 0, 0, 0, 0, 0, 0));
          socket.pipe(to).pipe(socket);
        });
        to.on("error", () => socket.end(Uint8Array.of(5, 5, 0, 1, 0, 0, 0, 0, 0, 0)));
      });
    });
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  return {
    port: (server.address() as { port: number }).port,
    asked,
    close: () => new Promise((closed) => server.close(() => closed())),
  };
}
