// A LAN for tests: hosts in network namespaces of their own on one switch, whose cables can be pulled and which can be split in parts.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { request } from "node:http";
import { havePrograms } from "./peers.ts";
import { runToEnd } from "./program.ts";

/** One host. */
export interface LanHost {
  readonly name: string;
  /** Its address on the LAN: "10.78.0.1". */
  readonly address: string;
  /** A command line that runs `command` on this host, with this machine's files. */
  within(...command: readonly string[]): string[];
  /** Pulls its cable; it is seen on neither side that the other is still there. */
  unplug(): Promise<void>;
  plug(): Promise<void>;
}

export interface Lan {
  readonly hosts: readonly LanHost[];
  /** Nobody reaches anybody of another part; cables stay in. Hosts that are not named stay together. */
  split(...parts: readonly (readonly LanHost[])[]): Promise<void>;
  heal(): Promise<void>;
  stop(): Promise<void>;
}

/** Whether namespaces can be made here. False = not here, and the reason was said; with CI=true this throws instead. */
export async function haveLan(): Promise<boolean> {
  if (!(await havePrograms("ip", "nsenter", "unshare"))) return false;
  const tried = await runToEnd(["unshare", "--net", "ip", "link", "add", "type", "veth"]);
  if (tried.exitCode === 0) return true;
  const text = `not run: no network namespaces here: ${tried.err.trim()}`;
  if (process.env["CI"] === "true") throw new Error(text);
  console.warn(text);
  return false;
}

/** An empty network namespace with its loopback up. */
export interface Namespace {
  /** Of a process that lives in it. */
  readonly pid: number;
  within(...command: readonly string[]): string[];
  run(...command: readonly string[]): Promise<void>;
  stop(): Promise<void>;
}

/** Makes one; ends with `stop`. */
export async function namespace(): Promise<Namespace> {
  // It lives as long as its input is open.
  const child = spawn("unshare", ["--net", "sh", "-c", "ip link set lo up && echo up && exec cat"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const [line] = await once(child.stdout, "data");
  if (!String(line).startsWith("up")) throw new Error(`no namespace: ${line}`);
  const within = (...command: readonly string[]): string[] => ["nsenter", "-t", `${child.pid}`, "-n", ...command];
  return {
    pid: child.pid as number,
    within,
    async run(...command) {
      const { exitCode, err } = await runToEnd(within(...command));
      if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${err}`);
    },
    async stop() {
      child.stdin.end();
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    },
  };
}

/** Hosts with these names at 10.78.0.1, .2 …, or on another network of 256 addresses. */
export async function startLan(names: readonly string[], network = "10.78.0"): Promise<Lan> {
  const wires = await namespace();
  const all = [wires];
  await wires.run("ip", "link", "add", "br0", "type", "bridge");
  await wires.run("ip", "link", "set", "br0", "up");
  const hosts: LanHost[] = [];
  const portOf = new Map<LanHost, string>();
  for (const [i, name] of names.entries()) {
    const own = await namespace();
    all.push(own);
    const port = `port${i}`;
    await wires.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", `${own.pid}`);
    await wires.run("ip", "link", "set", port, "master", "br0", "up");
    const address = `${network}.${i + 1}`;
    await own.run("ip", "address", "add", `${address}/24`, "dev", "eth0");
    await own.run("ip", "link", "set", "eth0", "up");
    const host: LanHost = {
      name,
      address,
      within: own.within,
      unplug: () => wires.run("ip", "link", "set", port, "nomaster"),
      plug: () => wires.run("ip", "link", "set", port, "master", "br0"),
    };
    hosts.push(host);
    portOf.set(host, port);
  }
  let bridges = 0;
  return {
    hosts,
    async split(...parts) {
      for (const part of parts) {
        const bridge = `br${++bridges}`;
        await wires.run("ip", "link", "add", bridge, "type", "bridge");
        await wires.run("ip", "link", "set", bridge, "up");
        for (const host of part) await wires.run("ip", "link", "set", portOf.get(host) as string, "master", bridge);
      }
    },
    async heal() {
      for (const host of hosts) await host.plug();
    },
    async stop() {
      await Promise.all(all.map((each) => each.stop()));
    },
  };
}

/** Asks over a unix socket, through which namespaces do not matter. */
export function askSocket(
  socketPath: string,
  path: string,
  method = "GET",
  body?: unknown,
): Promise<{ readonly status: number; readonly text: string }> {
  return new Promise((resolve, reject) => {
    const asked = request({ socketPath, path, method, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        text += chunk;
      });
      response.once("end", () => resolve({ status: response.statusCode ?? 0, text }));
      response.once("error", reject);
    });
    asked.once("error", reject);
    asked.end(body === undefined ? undefined : JSON.stringify(body));
  });
}
