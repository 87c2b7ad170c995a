// `trilith registrator`: a drop-in for Registrator 7.4.0, from its flags to its backends.
import { type Clock, systemClock } from "../../base/clock.ts";
import { type Disk, systemDisk } from "../../base/disk.ts";
import { messageOf } from "../../base/error.ts";
import { createHttp, type Http } from "../../base/http.ts";
import { type Net, systemNet } from "../../base/net.ts";
import { type Processes, systemProcesses } from "../../base/process.ts";
import { type Random, systemRandom } from "../../base/random.ts";
import type { Backend } from "./backends/backend.ts";
import { openMemory } from "./backends/memory.ts";
import { hasBackend, openBackend } from "./backends/open.ts";
import { parseRegistryUri } from "./backends/uri.ts";
import { Writer } from "./backends/writer.ts";
import { parseHost } from "./endpoint.ts";
import { endpointOfEnvironment } from "./places.ts";
import { faultOf, parseFlags, type RegistratorFlags } from "./registrator-command/flags.ts";
import { follow, statePath } from "./registrator-command/follow.ts";
import { parseTemplate } from "./tags-template.ts";

/** What the command line speaks for. */
const PORT_MOST = 65_535;
const VERSION = "v7.4.0";
/** Registrator's own socket, where its image has it mounted; then the usual one. */
const SOCKETS = ["unix:///tmp/docker.sock", "unix:///var/run/docker.sock"];

/** The machine it runs on; tests bring their own pieces. */
export interface RegistratorMachine {
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
  readonly net: Net;
  readonly http: Http & { close(): Promise<void> };
  readonly processes: Processes;
}

/** The end of the program, with its exit code and a text for the log. */
class Fatal extends Error {}

/**
 * Runs the command line to its end. Without a signal there is none: the program is ended by SIGTERM, as Registrator is; nothing is
 * deregistered then.
 * @returns the exit code: 0 for --version and -help, 1 for what went wrong, 2 for a wrong command line
 */
export async function registrator(
  words: readonly string[],
  io: { out(text: string): void; err(text: string): void },
  signal: AbortSignal = new AbortController().signal,
  machine: RegistratorMachine = {
    clock: systemClock,
    random: systemRandom,
    disk: systemDisk,
    net: systemNet,
    http: createHttp(),
    processes: systemProcesses,
  },
): Promise<number> {
  if (words.length === 1 && words[0] === "--version") {
    io.out(`${VERSION}\n`);
    return 0;
  }
  const say = (text: string): void => io.err(`${stamp(machine.clock.now())} ${text}\n`);
  say(`Starting registrator ${VERSION} ...`);
  const parsed = parseFlags(words);
  if (!("flags" in parsed)) {
    io.err(parsed.text);
    return parsed.exitCode;
  }
  try {
    await run(parsed.flags, say, signal, machine);
    return 0;
  } catch (error) {
    if (signal.aborted) return 0;
    if (!(error instanceof Fatal)) throw error;
    say(error.message);
    return 1;
  } finally {
    await machine.http.close();
  }
}

/** The time as Go's log package writes it: local, "2026/11/20 13:25:28". */
function stamp(ms: number): string {
  const at = new Date(ms);
  const two = (value: number): string => String(value).padStart(2, "0");
  const day = `${at.getFullYear()}/${two(at.getMonth() + 1)}/${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** Anything thrown becomes the end of the program. */
function orFatal<T>(make: () => T): T {
  try {
    return make();
  } catch (error) {
    throw new Fatal(messageOf(error));
  }
}

async function run(
  flags: RegistratorFlags,
  say: (text: string) => void,
  signal: AbortSignal,
  machine: RegistratorMachine,
): Promise<void> {
  const { processes, disk } = machine;
  if (flags.ip !== "") say(`Forcing host IP to ${flags.ip}`);
  const fault = faultOf(flags);
  if (fault !== undefined) throw new Fatal(fault);
  const fromEnvironment = orFatal(() => endpointOfEnvironment(processes, disk));
  const endpoints =
    fromEnvironment === undefined ? SOCKETS.map((socket) => parseHost(socket, "docker")) : [fromEnvironment];
  // A template that cannot be read is said now, not at the first container.
  const template = orFatal(() => parseTemplate(flags.tags));

  const uri = parseRegistryUri(flags.uri);
  if (uri === undefined) throw new Fatal(`bad adapter uri: ${flags.uri}`);
  if (!hasBackend(uri.scheme)) throw new Fatal(`unrecognized adapter: ${flags.uri}`);
  // Go's dialer would refuse it at the first attempt, for every attempt.
  for (const [, port = ""] of uri.host.matchAll(/:(\d+)(?=,|$)/g))
    if (Number(port) > PORT_MOST)
      throw new Fatal(`bad adapter uri: ${flags.uri}: port ${port} is more than ${PORT_MOST}`);
  say(`Using ${uri.scheme} adapter: ${uri.shown}`);
  let writer: Writer | undefined;
  const ground = {
    ...machine,
    say,
    env: (name: string) => processes.env(name),
    ttlSeconds: flags.ttlSeconds,
    lost: () => writer?.check(),
  };
  const backend = orFatal(() => openBackend(uri, ground)) as Backend;
  try {
    await connect(backend, flags, say, signal, machine);
    const path = statePath(processes, flags.uri, endpoints);
    writer = new Writer(backend, await openMemory(path, disk, say), machine, {
      say,
      refreshMs: flags.ttlRefreshSeconds * 1000,
      resyncMs: flags.resyncSeconds * 1000,
      cleanup: flags.cleanup ? { hostname: processes.hostname() } : undefined,
    });
    say("Listening for Docker events ...");
    const hostname = processes.hostname();
    await follow({ flags, template, endpoints, hostname, optional: false }, writer, say, signal, machine);
  } finally {
    backend.close();
  }
}

async function connect(
  backend: Backend,
  { retryAttempts, retryIntervalMs }: RegistratorFlags,
  say: (text: string) => void,
  signal: AbortSignal,
  { clock }: RegistratorMachine,
): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    say(`Connecting to backend (${attempt}/${retryAttempts})`);
    try {
      return await backend.ping(signal);
    } catch (error) {
      if (signal.aborted) throw error;
      if (retryAttempts >= 0 && attempt >= retryAttempts) throw new Fatal(messageOf(error));
    }
    await clock.sleep(retryIntervalMs, signal);
  }
}
