// `trilith debug`: gathers for a while what a person who looks for a fault wants to see (agent, host, members, metrics, the log) into one archive, as Consul's does.
import { gzipSync } from "node:zlib";
import { systemClock } from "../../base/clock.ts";
import { systemDisk } from "../../base/disk.ts";
import { InputError, messageOf, TrilithError } from "../../base/error.ts";
import { packageVersion } from "../../base/terminal.ts";
import { type Client, type ClientOptions, clientFlags, withClient } from "../client.ts";
import { type Command, collect, type Io } from "../io.ts";
import { type TarFile, tarOf } from "../tar.ts";

interface Options extends ClientOptions {
  readonly capture?: readonly string[];
  readonly duration: string;
  readonly interval: string;
  readonly output?: string;
  readonly archive: boolean;
}

/** What stays as it is, captured once. */
const STATIC: Readonly<Record<string, string>> = {
  agent: "/v1/agent/self",
  host: "/v1/agent/host",
  members: "/v1/agent/members?wan=1",
};
const TARGETS = ["agent", "host", "logs", "members", "metrics", "pprof"];
/** Consul's former names. */
const FORMER: Readonly<Record<string, string>> = { cluster: "members" };
const SHORTEST_MS = 1000;
/** The log of a busy agent at its most talkative must not fill the memory. */
const LOG_MAX_BYTES = 256 << 20;

export const command: Command = {
  name: "debug",
  summary: "gather what is needed to look into a fault into one archive",
  define(parser, io, done) {
    clientFlags(parser)
      .option("--capture <what>", `${TARGETS.join(", ")} (repeatable; default: all)`, collect)
      .option("--duration <duration>", "how long to capture", "5m")
      .option("--interval <duration>", "how often to capture what changes", "30s")
      .option("--output <path>", "where to write, without .tar.gz (default: consul-debug-<time> in this folder)")
      .option("--archive", "write one .tar.gz", true)
      .option("--no-archive", "write a folder instead")
      .action(async (options: Options) => done(await debug(options, io)));
  },
};

async function timesOf(options: Options): Promise<{ durationMs: number; intervalMs: number; shown: [string, string] }> {
  const { formatGoDuration, parseGoDuration } = await import("../../protocols/consul/cli.ts");
  const durationMs = parseGoDuration(options.duration, "--duration");
  const intervalMs = parseGoDuration(options.interval, "--interval");
  if (durationMs < SHORTEST_MS) throw new InputError("--duration", "must be at least 1s");
  if (intervalMs < SHORTEST_MS) throw new InputError("--interval", "must be at least 1s");
  if (durationMs < intervalMs) throw new InputError("--duration", "must be longer than the interval");
  return { durationMs, intervalMs, shown: [formatGoDuration(durationMs), formatGoDuration(intervalMs)] };
}

async function debug(options: Options, io: Io): Promise<number> {
  const { durationMs, intervalMs, shown } = await timesOf(options);
  const capture = [...new Set((options.capture ?? TARGETS).map((what) => FORMER[what] ?? what))].sort();
  for (const what of capture)
    if (!TARGETS.includes(what)) throw new InputError("--capture", `"${what}": expected ${TARGETS.join(", ")}`);
  const stamp = new Date(systemClock.now())
    .toISOString()
    .replace(/\.\d+Z$/, "Z")
    .replaceAll(":", "-");
  const output = options.output ?? `consul-debug-${stamp}`;
  const target = options.archive ? `${output}.tar.gz` : output;
  if ((await systemDisk.info(target)) !== undefined) throw new TrilithError("conflict", `${target} exists already`);

  const files = new Map<string, Buffer[]>();
  const add = (name: string, text: string | Buffer): void => {
    const pieces = files.get(name) ?? [];
    pieces.push(Buffer.from(text));
    files.set(name, pieces);
  };
  await withClient(options, io, async (client) => {
    const { Config } = await client.get<{ Config: { Version: string } }>("/v1/agent/self");
    io.out("==> Starting debugger and capturing static information...\n");
    io.out(`     Agent Version: '${Config.Version}'\n`);
    io.out(`          Interval: '${shown[1]}'\n`);
    io.out(`          Duration: '${shown[0]}'\n`);
    io.out(`            Output: '${target}'\n`);
    io.out(`           Capture: '${capture.join(", ")}'\n`);
    if (capture.includes("pprof")) io.err("==> pprof is not captured: agents of Trilith have no /debug/pprof\n");
    const captured = capture.filter((what) => what !== "pprof");
    const index = {
      cli_version: packageVersion(),
      agent_version: Config.Version,
      interval: shown[1],
      duration: shown[0],
      targets: captured,
    };
    add("index.json", JSON.stringify(index, null, 4));
    for (const [what, path] of Object.entries(STATIC))
      if (capture.includes(what)) add(`${what}.json`, JSON.stringify(await client.get<unknown>(path), null, 4));
    await captureWhile(captured, { durationMs, intervalMs }, options, io, client, add);
  });
  const folder = output.split("/").at(-1) ?? output;
  const whole = [...files].map(
    ([name, pieces]): TarFile => ({ name: `${folder}/${name}`, bytes: Buffer.concat(pieces) }),
  );
  if (options.archive) {
    await systemDisk.replace(target, gzipSync(tarOf(whole, systemClock.now())), 0o600);
    io.out(`    Saved debug archive: ${target}\n`);
  } else {
    await systemDisk.makeFolder(target);
    for (const { name, bytes } of whole)
      await systemDisk.replace(`${target}/${name.slice(folder.length + 1)}`, bytes, 0o600);
    io.out(`    Saved debug directory: ${target}\n`);
  }
  return 0;
}

/** The log as it is written, and the figures every interval; an interruption ends it early, with what there is by then. */
async function captureWhile(
  capture: readonly string[],
  { durationMs, intervalMs }: { readonly durationMs: number; readonly intervalMs: number },
  options: Options,
  io: Io,
  client: Client,
  add: (name: string, text: string | Buffer) => void,
): Promise<void> {
  const end = new AbortController();
  const timer = systemClock.after(durationMs, () => end.abort(), true);
  const over = AbortSignal.any([end.signal, io.signal]);
  const logging = capture.includes("logs")
    ? withClient(options, { env: io.env, signal: over }, (client) => log(client, over, io, add))
    : undefined;
  try {
    for (let count = 0; capture.includes("metrics") && !over.aborted; count++) {
      const at = new Date(systemClock.now()).toISOString();
      io.out(`==> Beginning capture interval ${at} (${count})\n`);
      try {
        add("metrics.json", `${JSON.stringify(await client.get<unknown>("/v1/agent/metrics"))}\n`);
      } catch (error) {
        if (over.aborted) break;
        io.err(`==> Error during capture: ${messageOf(error)}\n`);
      }
      await systemClock.sleep(intervalMs, over).catch(() => {});
    }
    await logging;
  } finally {
    timer.cancel();
    end.abort();
  }
}

async function log(
  client: Client,
  over: AbortSignal,
  io: Io,
  add: (name: string, text: Buffer) => void,
): Promise<void> {
  let bytes = 0;
  // There may be nothing to tell.
  add("consul.log", Buffer.alloc(0));
  try {
    const { body } = await client.request("GET", "/v1/agent/monitor?loglevel=debug");
    for await (const piece of body as AsyncIterable<Buffer>) {
      bytes += piece.length;
      if (bytes > LOG_MAX_BYTES) {
        io.err("==> the log is too long: what came later is left out\n");
        break;
      }
      add("consul.log", piece);
    }
  } catch (error) {
    if (!over.aborted) io.err(`==> Error during capture: ${messageOf(error)}\n`);
  }
}
