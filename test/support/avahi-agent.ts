// Agents with mDNS on hosts of a LAN of namespaces, and what Avahi's browser sees there.
import { existsSync } from "node:fs";
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { AvahiHost } from "./avahi-lan.ts";
import { eventually, startProgram } from "./peers.ts";
import { type Done, program } from "./program.ts";

/** An agent on one host. */
export interface AgentOnHost {
  readonly host: AvahiHost;
  /** `trilith …` on the agent's host, against it. */
  trilith(...words: string[]): Promise<Done>;
  /** An answer of its HTTP API. */
  get(path: string): Promise<unknown>;
  register(service: object): Promise<void>;
  dig(...question: string[]): Promise<string>;
  stop(signal?: NodeJS.Signals): Promise<void>;
}

let agents = 0;

/** Starts `trilith agent --mdns` there; `ends` gets what ends it for certain. */
export async function startAgentOn(
  ends: (() => Promise<unknown>)[],
  host: AvahiHost,
  ...flags: string[]
): Promise<AgentOnHost> {
  if (!existsSync(program)) throw new Error(`${program} is missing: npm run build`);
  const data = join(host.folder, `data${++agents}`);
  await mkdir(data);
  const words = [process.execPath, program, "agent", "--mdns", "--docker-host", "off", "--environ", "off", "--quiet"];
  const told = flags.includes("--data-dir") ? flags : ["--data-dir", data, ...flags];
  const running = await startProgram(host.command(...words, ...told), join(host.folder, "agent.log"));
  // With its goodbye: what others have heard of it must not outlive a try.
  ends.push(() => running.stop());
  const curl = async (...more: string[]): Promise<string> => {
    const { exitCode, out, err } = await host.run("curl", "-sf", "-m", "5", ...more);
    if (exitCode !== 0) throw new Error(`curl ${more.join(" ")}: ${exitCode} ${err}`);
    return out;
  };
  const url = "http://127.0.0.1:8500";
  const agent: AgentOnHost = {
    host,
    trilith: (...more) => host.run(process.execPath, program, ...more),
    get: async (path) => JSON.parse(await curl(`${url}${path}`)),
    register: async (service) =>
      void (await curl("-X", "PUT", "-d", JSON.stringify(service), `${url}/v1/agent/service/register`)),
    dig: async (...question) => (await host.run("dig", "+short", "@127.0.0.1", "-p", "8600", ...question)).out,
    stop: running.stop,
  };
  await eventually(`the agent on ${host.name} answers`, async () => (await agent.get("/v1/agent/self")) !== undefined);
  return agent;
}

/** Something answers at these ports of a host: what the guard holds there is not found to refuse, which would end the hold after two seconds. */
export async function answerAt(
  ends: (() => Promise<unknown>)[],
  host: AvahiHost,
  ...ports: readonly number[]
): Promise<void> {
  const script = `Promise.all([${ports}].map((port) => new Promise((up) => require("net").createServer((one) => one.destroy()).listen(port, "::", up)))).then(() => console.log("up"))`;
  const child = host.spawn(process.execPath, "-e", script);
  const ended = new Promise((resolve) => child.once("close", resolve));
  ends.push(() => {
    child.kill("SIGKILL");
    return ended;
  });
  await new Promise<void>((resolve, reject) => {
    child.stdout?.once("data", () => resolve());
    child.once("close", (code) => reject(new Error(`nothing answers at ${ports}: exit code ${code}`)));
  });
}

/** Takes all service files off a host. */
export async function removeServiceFiles(host: AvahiHost): Promise<void> {
  const services = join(host.folder, "etc", "services");
  for (const name of await readdir(services)) await rm(join(services, name));
}

/** Lines of avahi-browse for resolved services of a type, IPv4. */
export async function browsed(host: AvahiHost, type: string): Promise<string[]> {
  const { out } = await host.run("avahi-browse", "-rptk", type);
  return out.split("\n").filter((line) => line.startsWith("=;eth0;IPv4;"));
}
