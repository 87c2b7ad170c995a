// An agent without a server on a host of a test's LAN, as people run it, asked through its unix socket.
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { askSocket, type LanHost } from "./lan.ts";
import { eventually, startProgram } from "./peers.ts";
import { type Done, program, runToEnd } from "./program.ts";

interface Row {
  readonly Node: { readonly Node: string; readonly Address: string };
  readonly Service: { readonly ID: string };
}

/** An agent on a host, with its own instance of "web". */
export class Member {
  readonly host: LanHost;
  readonly #folder: string;
  readonly #flags: readonly string[];
  #program: Awaited<ReturnType<typeof startProgram>> | undefined;

  /** `flags`: how it finds the others. */
  constructor(host: LanHost, folder: string, flags: readonly string[]) {
    this.host = host;
    this.#folder = folder;
    this.#flags = flags;
  }

  get socket(): string {
    return join(this.#folder, `${this.host.name}.sock`);
  }
  get pid(): number {
    return this.#program?.pid ?? -1;
  }

  async start(): Promise<void> {
    const { name, address } = this.host;
    const flags = ["--node", name, "--bind", address, "--client", `127.0.0.1 unix://${this.socket}`];
    const off = ["--docker-host", "off", "--environ", "off", "--quiet"];
    const own = ["--data-dir", join(this.#folder, name), ...this.#flags];
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
    const program = this.#program;
    this.#program = undefined;
    await program?.stop(signal);
  }
  /** For another try: killed, whatever it was doing, and started without what it knew. */
  async startAnew(): Promise<void> {
    await this.stop("SIGKILL");
    await rm(join(this.#folder, this.host.name), { recursive: true, force: true });
    await this.start();
  }
  get isRunning(): boolean {
    return this.#program !== undefined;
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
      const now = await this.members();
      if (now !== members) throw new Error(`it knows ${now}`);
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
        const now = await this.web(name);
        if (now !== hosts) throw new Error(`it answers "${now}"`);
        return true;
      },
      limitMs,
    );
  }
}
