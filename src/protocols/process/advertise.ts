// Registering the calling program itself: what the package's `advertise` is. The agent keeps it as long as this process lives.
import { agentAddress } from "../../base/agent-address.ts";
import { systemClock } from "../../base/clock.ts";
import { InputError, TrilithError } from "../../base/error.ts";
import { createHttp } from "../../base/http.ts";
import { systemProcesses } from "../../base/process.ts";
import { systemRandom } from "../../base/random.ts";
import { environment } from "../../base/terminal.ts";
import type { Labels } from "../../model/node.ts";
import { Link, type LinkEvent } from "./link.ts";
import { parseCheckWord, type Statement } from "./statement.ts";

export interface AdvertiseOptions {
  readonly name: string;
  readonly port: number;
  /** The address the port listens on; "" (default) = the host's own. A loopback address stays on this host. */
  readonly address?: string;
  readonly protocol?: "tcp" | "udp";
  readonly tags?: readonly string[];
  readonly labels?: Labels;
  /** How the agent asks whether it is well: "http:/path", "http://…", "tcp", "tcp:host:port". */
  readonly checks?: readonly string[];
  /** How often it asks; default 10 000. */
  readonly intervalMs?: number;
  /** The agent: host:port, http://…, unix:///path; default TRILITH_HTTP_ADDR, CONSUL_HTTP_ADDR, then 127.0.0.1:8500. */
  readonly agent?: string;
  readonly token?: string;
  /** Told when the agent went away (it is looked for again by itself), is back, or refuses. */
  readonly onState?: (state: "connected" | "away" | "refused", text: string) => void;
}

export interface Advertised {
  /** True while the agent has it. */
  readonly registered: boolean;
  /** Takes it out of every lookup, still registered; `false` puts it back. */
  drain(draining?: boolean): Promise<void>;
  /** Takes it out for good. Once. */
  stop(): Promise<void>;
}

/** How long the agent may take before `advertise` resolves all the same. */
const TAKEN_MS = 3000;
const INTERVAL_MS = 10_000;

/**
 * Registers a service of this process. Resolves when the agent's list has it. Where no agent answers yet, it is looked for until
 * `stop`: a program runs with or without an agent. Dies with the process; keeps no process running by itself.
 * @throws TrilithError `invalid` (name, port), and what the agent refuses
 */
export async function advertise(options: AdvertiseOptions): Promise<Advertised> {
  const { name, port, protocol = "tcp", address = "" } = options;
  if (name === "" || name.includes("\0"))
    throw new InputError("advertise: name", `${JSON.stringify(name)}: expected a name`);
  if (!Number.isInteger(port) || port < 1 || port > 65_535)
    throw new InputError("advertise: port", `${port}: expected a whole number from 1 to 65535`);
  const checks = (options.checks ?? []).map((word) => {
    const read = parseCheckWord(word, options.intervalMs ?? INTERVAL_MS, "");
    if ("script" in read || read.check.kind === "ttl")
      throw new InputError(`check "${word}"`, "expected http:/path, http://host/path, tcp or tcp:host:port");
    return read.check;
  });
  const { base, socketPath, text } = agentAddress(options.agent);
  const token = options.token ?? environment("TRILITH_HTTP_TOKEN");
  const http = createHttp();
  let registered = false;
  let refused: string | undefined;
  let settle: () => void = () => {};
  const tell = (event: LinkEvent): void => {
    registered = event.event === "connected";
    if (event.event === "refused") refused = event.text;
    options.onState?.(event.event, "text" in event ? event.text : "");
    settle();
  };
  const statement: Statement = {
    pid: systemProcesses.pid,
    start: (await systemProcesses.startTime(systemProcesses.pid)) ?? 0,
    part: name,
    name,
    command: "advertise()",
    tags: options.tags ?? [],
    labels: options.labels ?? {},
    ports: [{ protocol, port, host: address, name, first: true }],
    checks,
    draining: false,
  };
  const link = new Link(
    { clock: systemClock, random: systemRandom, http },
    {
      base,
      shown: text,
      ...(socketPath === undefined ? {} : { socketPath }),
      ...(token === undefined ? {} : { token }),
    },
    tell,
  );
  const close = async (): Promise<void> => {
    await link.close();
    await http.close();
  };
  const first = link.state(statement);
  await new Promise<void>((resolve) => {
    settle = resolve;
  });
  if (registered) await link.taken(first, TAKEN_MS);
  if (refused !== undefined) {
    await close();
    throw new TrilithError("not-allowed", `the agent at ${text} refuses "${name}": ${refused}`);
  }
  return {
    get registered(): boolean {
      return registered;
    },
    async drain(draining = true) {
      await link.taken(link.state({ ...statement, draining }), TAKEN_MS);
    },
    async stop() {
      registered = false;
      await link.gone(false, "stopped advertising", TAKEN_MS);
      await close();
    },
  };
}
