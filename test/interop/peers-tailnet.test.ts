// Agents without a server on a tailnet, as an imitated LocalAPI shows it: who is online is found, whatever happens to tailscaled.
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { haveLan, type Lan, type LanHost, startLan } from "../support/lan.ts";
import { triedBefore } from "../support/own-name.ts";
import { eventually, havePrograms, ownFolder } from "../support/peers.ts";
import { Member } from "../support/peers-mode.ts";

const here = (await haveLan()) && (await havePrograms("dig"));

/** tailscaled's LocalAPI of one host, as far as it is asked. */
class LocalApi {
  state = "Running";
  tun = true;
  readonly offline = new Set<string>();
  readonly socket: string;
  readonly #host: LanHost;
  readonly #hosts: readonly LanHost[];
  #server: Server | undefined;

  constructor(host: LanHost, hosts: readonly LanHost[], folder: string) {
    this.#host = host;
    this.#hosts = hosts;
    this.socket = join(folder, `${host.name}-tailscaled.sock`);
  }
  async start(): Promise<void> {
    const server = createServer((request, response) => {
      response.writeHead(request.url === "/localapi/v0/status" ? 200 : 404, { "content-type": "application/json" });
      const told = ({ name, address }: LanHost): object => ({
        HostName: name,
        DNSName: `${name}.tail.example.`,
        TailscaleIPs: [address],
        Online: !this.offline.has(name),
      });
      const peers = this.#hosts
        .filter((host) => host !== this.#host)
        .map((host) => [`nodekey:${host.name}`, told(host)]);
      response.end(
        JSON.stringify({
          Version: "1.102.5",
          TUN: this.tun,
          BackendState: this.state,
          TailscaleIPs: this.state === "Running" ? [this.#host.address] : null,
          Self: told(this.#host),
          Peer: Object.fromEntries(peers),
        }),
      );
    });
    this.#server = server;
    await new Promise<void>((listening) => server.listen(this.socket, listening));
  }
  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    server.closeAllConnections();
    await new Promise((closed) => server.close(closed));
  }
}

describe.skipIf(!here)("agents without a server on a tailnet", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let lan: Lan;
  let all: Member[];
  let apis: LocalApi[];
  let a: Member;
  let b: Member;
  let c: Member;

  beforeAll(async () => {
    folder = await ownFolder("peers-tailnet");
    lan = await startLan(["alpha", "beta", "gamma"], "100.64.0");
    apis = lan.hosts.map((host) => new LocalApi(host, lan.hosts, folder.path));
    await Promise.all(apis.map((api) => api.start()));
    all = lan.hosts.map(
      (host, i) => new Member(host, folder.path, ["--peers", "tailnet", "--peers-tailscaled", apis[i]?.socket ?? ""]),
    );
    [a, b, c] = all as [Member, Member, Member];
    await Promise.all(all.map((one) => one.start()));
  }, 180_000);
  beforeEach(async (context) => {
    if (!triedBefore(context)) return;
    for (const api of apis) {
      await api.stop();
      Object.assign(api, { state: "Running", tun: true });
      api.offline.clear();
      await api.start();
    }
    await Promise.all(all.map((one) => one.startAnew()));
  });
  afterAll(async () => {
    await Promise.all((all ?? []).map((one) => one.stop("SIGKILL")));
    await Promise.all((apis ?? []).map((api) => api.stop()));
    await lan?.stop();
    await folder?.remove();
  });
  const everywhere = async (hosts: string): Promise<void> => {
    await Promise.all(all.map((one) => one.sees(hosts)));
  };
  const doctor = async (one: Member): Promise<string> => (await one.trilith("doctor")).out;

  it("finds everybody who is online, without a name or a key", async () => {
    await everywhere("alpha beta gamma");
    expect(await b.dns()).toBe("100.64.0.1 100.64.0.2 100.64.0.3");
    expect(await doctor(a)).toMatch(/this host's own is shown at 100\.64\.0\.1:8504/);
  });

  it("hears on while tailscaled is away, stopped or logged out, says so, and finds out who vanished then", async () => {
    await apis[0]?.stop();
    await eventually("doctor tells", async () => /there is no tailscaled at/.test(await doctor(a)));
    expect(await a.web()).toBe("alpha beta gamma");
    await c.stop("SIGKILL");
    await a.sees("alpha beta");
    await c.start();
    await everywhere("alpha beta gamma");
    await (apis[0] as LocalApi).start();
    (apis[0] as LocalApi).state = "NeedsLogin";
    await eventually("doctor tells", async () => /needs a login/.test(await doctor(a)));
    expect(await a.web()).toBe("alpha beta gamma");
    (apis[0] as LocalApi).state = "Running";
    await eventually("all is well again", async () => !/needs a login/.test(await doctor(a)));
  });

  it("hears a host on that tailscaled calls offline, until it falls silent, and finds it when it is online again", async () => {
    for (const api of apis) api.offline.add("gamma");
    await c.stop("SIGKILL");
    await Promise.all([a.sees("alpha beta"), b.sees("alpha beta")]);
    await c.start();
    for (const api of apis) api.offline.clear();
    await everywhere("alpha beta gamma");
  });

  it("says what is the matter with userspace networking", async () => {
    (apis[1] as LocalApi).tun = false;
    await eventually("doctor tells", async () => /userspace networking/.test(await doctor(b)));
    (apis[1] as LocalApi).tun = true;
    await eventually("all is well again", async () => !/userspace networking/.test(await doctor(b)));
  });
});
