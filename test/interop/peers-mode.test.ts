// Agents without a server on a LAN of network namespaces: what each has all answer; hosts that vanish, partitions, restarts, goodbyes.

import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { askSocket, haveLan, type Lan, type LanHost, startLan } from "../support/lan.ts";
import { eventually, havePrograms, ownFolder, startProgram } from "../support/peers.ts";
import { type Done, program, runToEnd } from "../support/program.ts";

const here = (await haveLan()) && (await havePrograms("dig"));
/** Within so long a host that vanished has to be critical. */
const VANISHED_MS = 5_000;

interface Row {
  readonly Node: { readonly Node: string; readonly Address: string };
  readonly Service: { readonly ID: string };
}

/** An agent on a host, with its own instance of "web". */
class Member {
  readonly host: LanHost;
  readonly #folder: string;
  readonly #hosts: string;
  #program: Awaited<ReturnType<typeof startProgram>> | undefined;

  constructor(host: LanHost, folder: string, hosts: readonly LanHost[]) {
    this.host = host;
    this.#folder = folder;
    this.#hosts = hosts.map(({ address }) => address).join(",");
  }

  get socket(): string {
    return join(this.#folder, `${this.host.name}.sock`);
  }
  get pid(): number {
    return this.#program?.pid ?? -1;
  }

  async start(): Promise<void> {
    const { name, address } = this.host;
    const config = join(this.#folder, "peers.json");
    await writeFile(config, JSON.stringify({ peers_key: "what all of this LAN share" }));
    const flags = ["--node", name, "--bind", address, "--client", `127.0.0.1 unix://${this.socket}`];
    const off = ["--docker-host", "off", "--environ", "off", "--quiet"];
    const own = ["--data-dir", join(this.#folder, name), "--config-file", config, "--peers", this.#hosts];
    // A socket that a killed agent left is in the next one's way.
    await rm(this.socket, { force: true });
    this.#program = await startProgram(
      this.host.within(process.execPath, program, "agent", ...flags, ...off, ...own),
      join(this.#folder, `${name}.log`),
    );
    await eventually(`${name} is up`, async () => (await this.get("/v1/agent/self")) !== undefined);
    await this.put("/v1/agent/service/register", { ID: `web-${name}`, Name: "web", Port: 80, Tags: [name] });
  }
  async stop(signal?: NodeJS.Signals): Promise<void> {
    await this.#program?.stop(signal);
  }
  signal(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
  }

  async get(path: string): Promise<unknown> {
    const { status, text } = await askSocket(this.socket, path);
    if (status !== 200) throw new Error(`${path}: ${status} ${text}`);
    return JSON.parse(text);
  }
  async put(path: string, body?: unknown): Promise<void> {
    const { status, text } = await askSocket(this.socket, path, "PUT", body);
    if (status !== 200) throw new Error(`${path}: ${status} ${text}`);
  }
  /** What HTTP answers: the hosts that have it and are well. */
  async web(name = "web"): Promise<string> {
    const rows = (await this.get(`/v1/health/service/${name}?passing`)) as Row[];
    return rows.map(({ Node }) => Node.Node).join(" ");
  }
  /** What DNS answers: addresses, in order. */
  async dns(name = "web.service.consul"): Promise<string> {
    const { out } = await this.run("dig", "@127.0.0.1", "-p", "8600", "+short", "+tries=1", name);
    return out.trim().split("\n").sort().join(" ");
  }
  async members(): Promise<string> {
    const rows = (await this.get("/v1/agent/members")) as { readonly Name: string; readonly Status: number }[];
    return rows.map(({ Name, Status }) => `${Name}:${Status === 1 ? "alive" : "failed"}`).join(" ");
  }
  knows(members: string): Promise<unknown> {
    return eventually(`${this.host.name} knows ${members}`, async () => {
      expect(await this.members()).toBe(members);
      return true;
    });
  }
  run(...command: readonly string[]): Promise<Done> {
    return runToEnd(this.host.within(...command));
  }
  trilith(...words: readonly string[]): Promise<Done> {
    return this.run(process.execPath, program, ...words);
  }
  sees(hosts: string, name = "web", limitMs = 20_000): Promise<unknown> {
    return eventually(
      `${this.host.name} answers ${name} with ${hosts}`,
      async () => {
        expect(await this.web(name)).toBe(hosts);
        return true;
      },
      limitMs,
    );
  }
}

describe.skipIf(!here)("agents without a server", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let lan: Lan;
  let all: Member[];
  let a: Member;
  let b: Member;
  let c: Member;
  const everywhere = async (hosts: string): Promise<void> => {
    await Promise.all(all.map((one) => one.sees(hosts)));
  };

  beforeAll(async () => {
    folder = await ownFolder("peers-mode");
    lan = await startLan("alpha", "beta", "gamma");
    all = lan.hosts.map((host) => new Member(host, folder.path, lan.hosts));
    [a, b, c] = all as [Member, Member, Member];
    await Promise.all(all.map((one) => one.start()));
  }, 60_000);
  afterAll(async () => {
    await Promise.all((all ?? []).map((one) => one.stop("SIGKILL")));
    await lan?.stop();
    await folder?.remove();
  });

  it("answers HTTP, DNS and members for all on every host, and refuses keys and locks with the way to get them", async () => {
    await everywhere("alpha beta gamma");
    for (const one of all) {
      expect(await one.dns()).toBe("10.78.0.1 10.78.0.2 10.78.0.3");
      expect(await one.dns("beta.web.service.consul")).toBe("10.78.0.2");
      expect(await one.dns("gamma.node.consul")).toBe("10.78.0.3");
      expect(await one.members()).toBe("alpha:alive beta:alive gamma:alive");
    }
    const lines = (await b.trilith("members")).out.split("\n").map((line) => line.split(/ +/).slice(0, 3).join(" "));
    expect(lines.slice(1, 4)).toEqual(all.map(({ host }) => `${host.name} ${host.address}:8301 alive`));
    for (const words of [
      ["kv", "get", "a"],
      ["kv", "put", "a", "b"],
      ["lock", "a", "true"],
    ]) {
      const { exitCode, err } = await a.trilith(...words);
      expect(exitCode, words.join(" ")).not.toBe(0);
      expect(err).toMatch(/no keys, sessions and locks among agents without a server.*--join.*--etcd/);
    }
  });

  it("tells the health and the drain of instances", async () => {
    await b.put("/v1/agent/check/register", {
      ID: "fit",
      ServiceID: "web-beta",
      Name: "fit",
      TTL: "60s",
      Status: "passing",
    });
    await everywhere("alpha beta gamma");
    await b.put("/v1/agent/check/fail/fit?note=tired");
    await everywhere("alpha gamma");
    const checks = (await c.get("/v1/health/checks/web")) as { CheckID: string; Output: string }[];
    expect(checks.find(({ CheckID }) => CheckID === "fit")?.Output).toBe("tired");
    expect(await c.dns()).toBe("10.78.0.1 10.78.0.3");
    await b.put("/v1/agent/check/deregister/fit");
    await everywhere("alpha beta gamma");
    await b.put("/v1/agent/service/maintenance/web-beta?enable=true&reason=repair");
    await everywhere("alpha gamma");
    await b.put("/v1/agent/service/maintenance/web-beta?enable=false");
    await everywhere("alpha beta gamma");
  });

  it.each([
    ["is killed", () => c.stop("SIGKILL"), () => c.start()],
    ["loses its cable", () => c.host.unplug(), () => c.host.plug()],
    ["hangs", async () => c.signal("SIGSTOP"), async () => c.signal("SIGCONT")],
  ])("a host that %s is critical within 5 s, out of the answers, and back when it is", async (_, vanish, back) => {
    await everywhere("alpha beta gamma");
    await vanish();
    await Promise.all([a.sees("alpha beta", "web", VANISHED_MS), b.sees("alpha beta", "web", VANISHED_MS)]);
    expect(await a.members()).toBe("alpha:alive beta:alive gamma:failed");
    expect(await b.dns()).toBe("10.78.0.1 10.78.0.2");
    const checks = (await b.get("/v1/health/node/gamma")) as { CheckID: string; Status: string }[];
    expect(checks.find(({ CheckID }) => CheckID === "serfHealth")?.Status).toBe("critical");
    await back();
    await everywhere("alpha beta gamma");
    await b.knows("alpha:alive beta:alive gamma:alive");
  });

  it("leaves the right state on both sides of a partition, and after it", async () => {
    await everywhere("alpha beta gamma");
    await lan.split([c.host]);
    await Promise.all([a.sees("alpha beta"), b.sees("alpha beta")]);
    // Two of three fell silent for gamma: its guard keeps them in answers, its directory tells the truth.
    await c.knows("alpha:failed beta:failed gamma:alive");
    expect(await c.web()).toBe("gamma");
    expect(await c.dns()).toBe("10.78.0.1 10.78.0.2 10.78.0.3");
    expect((await c.trilith("doctor")).out).toMatch(/"web" is held by the sharp-drop guard/);
    await a.put("/v1/agent/service/deregister/web-alpha");
    await b.put("/v1/agent/service/register", { ID: "db-beta", Name: "db", Port: 5432 });
    await c.put("/v1/agent/service/register", { ID: "mail-gamma", Name: "mail", Port: 25 });
    await c.put("/v1/agent/service/register", { ID: "web-gamma", Name: "web", Port: 81 });
    await a.sees("beta");
    await a.sees("beta", "db");
    expect([await a.web("db"), await a.web("mail"), await c.web("db"), await c.web("mail")]).toEqual([
      "beta",
      "",
      "",
      "gamma",
    ]);
    await lan.heal();
    await everywhere("beta gamma");
    for (const one of all) {
      expect([await one.web("db"), await one.web("mail")]).toEqual(["beta", "gamma"]);
      await one.knows("alpha:alive beta:alive gamma:alive");
      const [row] = (await one.get("/v1/catalog/service/web?filter=Node==gamma")) as { ServicePort: number }[];
      expect(row?.ServicePort).toBe(81);
    }
    await a.put("/v1/agent/service/register", { ID: "web-alpha", Name: "web", Port: 80, Tags: ["alpha"] });
    await everywhere("alpha beta gamma");
  });

  it("says goodbye when it is stopped, is back when it starts, and a restart elsewhere meanwhile brings no ghost", async () => {
    await everywhere("alpha beta gamma");
    await c.stop("SIGTERM");
    // At once: before the program had ended.
    expect([await a.web(), await b.web(), await a.members()]).toEqual([
      "alpha beta",
      "alpha beta",
      "alpha:alive beta:alive gamma:failed",
    ]);
    await a.stop("SIGKILL");
    await a.start();
    await a.sees("alpha beta");
    expect(await a.members()).toBe("alpha:alive beta:alive gamma:failed");
    await c.start();
    await everywhere("alpha beta gamma");
  });

  it("is forgotten by all when it leaves, and known again when it comes back", async () => {
    await c.trilith("leave");
    await Promise.all([a.sees("alpha beta"), b.sees("alpha beta")]);
    await a.knows("alpha:alive beta:alive");
    await c.stop();
    await c.start();
    await everywhere("alpha beta gamma");
  });
});
