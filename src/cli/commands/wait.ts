// `trilith wait`: until a service is there, on the LAN or at the agent; prints its address and port.
import { systemClock, type Timer } from "../../base/clock.ts";
import { codeOf, InputError, messageOf } from "../../base/error.ts";
import type { FindJson } from "../../index.ts";
import { type Client, type ClientOptions, clientFlags, clientFor, jsonFlag, segment } from "../client.ts";
import { type Command, collect, type Io, json, pairs } from "../io.ts";

interface Options extends ClientOptions {
  readonly name?: string;
  readonly tag?: readonly string[];
  readonly label?: readonly string[];
  readonly passing?: boolean;
  readonly timeout: string;
  readonly format: string;
  readonly json?: boolean;
}

/** What came: an endpoint as it is printed. */
interface Come {
  readonly name: string;
  readonly host: string;
  readonly address: string;
  readonly port: number;
  readonly labels: Readonly<Record<string, string>>;
}

/** As timeout(1) has it. */
const TIMED_OUT = 124;
/** An agent that is not there yet is asked so often. */
const AGAIN_MS = 500;
/** What DNS-SD's types look like, before it is known whether this is one. */
const LAN_TYPE = /^(?:(_[^.]+)\._sub\.)?(_[^.]+\._(?:tcp|udp))\.?$/i;

export const command: Command = {
  name: "wait",
  summary: "wait until a service is there: trilith wait web, trilith wait _http._tcp --name master --timeout 60s",
  define(parser, io, done) {
    jsonFlag(clientFlags(parser))
      .argument(
        "<service>",
        "a service's name, to ask the agent; or a type (_http._tcp, _printer._sub._http._tcp), to ask the LAN",
      )
      .option("--name <instance>", "on the LAN: only the instance with this name")
      .option("-t, --tag <tag>", "at the agent: only with this tag (repeatable)", collect)
      .option("-l, --label <key=value>", "only with this label, or this pair in the TXT record (repeatable)", collect)
      .option("--passing", "at the agent: no instances with warnings")
      .option("--timeout <duration>", "how long to wait at most; 0 = for ever", "60s")
      .option("--format <text>", "what to print: {address} {port} {host} {name} {label.KEY}", "{address} {port}")
      .addHelpText("after", `\nExit code ${TIMED_OUT} if it did not come in time.`)
      .action(async (service: string, options: Options) => done(await wait(service, options, io)));
  },
};

async function wait(service: string, options: Options, io: Io): Promise<number> {
  const { parseGoDuration } = await import("../../protocols/mdns/cli.ts");
  const timeoutMs = timeoutOf(options.timeout, parseGoDuration);
  // What is wrong with the format is told now, not when something has come.
  formatted({ name: "", host: "", address: "", port: 0, labels: {} }, options.format);
  const [type, subtype, ofType] = LAN_TYPE.exec(service) ?? [];
  const found =
    type === undefined
      ? await atAgent(service, options, io, timeoutMs)
      : await onLan(ofType ?? type, subtype, options, io, timeoutMs);
  if (found === undefined) return 130;
  if (typeof found === "string") {
    io.err(
      `trilith wait: ${service} did not come within ${/^\d+$/.test(options.timeout) ? `${options.timeout}s` : options.timeout}${found}\n`,
    );
    return TIMED_OUT;
  }
  io.out(options.json ? json(found) : `${formatted(found, options.format)}\n`);
  return 0;
}

/** How long to wait, in milliseconds. @throws InputError */
function timeoutOf(text: string, parse: (text: string) => number): number {
  const right = 'expected a duration such as "90s" or "1m30s", a number of seconds, or 0 for ever';
  if (/^\d+$/.test(text)) return Number(text) === 0 ? Number.POSITIVE_INFINITY : Number(text) * 1_000;
  let ms = 0;
  try {
    ms = parse(text);
  } catch {
    // Told below, with what would be right.
  }
  if (!(ms > 0)) throw new InputError("--timeout", `"${text}": ${right}`);
  return ms;
}

/** What came; a reason (may be "") after the time; undefined when the command was stopped. */
type Outcome = Come | string | undefined;

async function onLan(
  type: string,
  subtype: string | undefined,
  options: Options,
  io: Io,
  timeoutMs: number,
): Promise<Outcome> {
  if (options.tag !== undefined) throw new InputError("--tag", "the LAN knows no tags; --label is for TXT strings");
  if (options.passing) throw new InputError("--passing", "the LAN knows no health: what is announced counts");
  const { awaitOnLan } = await import("../../protocols/mdns/cli.ts");
  const labels = pairs(options.label ?? [], "--label");
  const { name } = options;
  const found = await awaitOnLan(
    { type, labels, timeoutMs, ...(subtype === undefined ? {} : { subtype }), ...(name === undefined ? {} : { name }) },
    io,
  );
  if (found === "stopped") return undefined;
  return found === "timeout" ? "" : { ...found, labels: Object.fromEntries(found.labels) };
}

async function atAgent(service: string, options: Options, io: Io, timeoutMs: number): Promise<Outcome> {
  if (options.name !== undefined)
    throw new InputError("--name", `is for instances on the LAN; "${service}" is asked of the agent: --tag, --label`);
  const query = new URLSearchParams({ limit: "1" });
  for (const tag of options.tag ?? []) query.append("tag", tag);
  for (const [key, value] of Object.entries(pairs(options.label ?? [], "--label")))
    query.append("label", `${key}=${value}`);
  if (options.passing) query.set("passing", "");
  const ending = new AbortController();
  const stop = (): void => ending.abort(io.signal.reason);
  io.signal.addEventListener("abort", stop, { once: true });
  let timer: Timer | undefined;
  if (timeoutMs < Number.POSITIVE_INFINITY)
    timer = systemClock.after(timeoutMs, () => ending.abort(new Error("too late")), true);
  const client = clientFor(options, { env: io.env, signal: ending.signal });
  let trouble: string | undefined;
  try {
    while (!ending.signal.aborted) {
      try {
        const path = `/v1/trilith/follow/${segment(service)}?${query}`;
        const found = await firstOf(client, path, service);
        if (found !== undefined) return found;
      } catch (error) {
        if (ending.signal.aborted) break;
        // What the agent refuses it will refuse again; one that is not there may come.
        if (codeOf(error) !== "unavailable") throw error;
        if (trouble === undefined) io.err(`trilith wait: ${messageOf(error)}; waiting for it\n`);
        trouble = messageOf(error);
      }
      await systemClock.sleep(AGAIN_MS, ending.signal).catch(() => undefined);
    }
    if (io.signal.aborted) return undefined;
    return trouble === undefined ? "" : `: ${trouble}`;
  } finally {
    timer?.cancel();
    io.signal.removeEventListener("abort", stop);
    await client.close();
  }
}

/** The first endpoint that a stream of answers tells of; undefined where the stream ends before (an agent that stops). */
async function firstOf(client: Client, path: string, name: string): Promise<Come | undefined> {
  const { body } = await client.request("GET", path);
  let text = "";
  try {
    for await (const chunk of body) {
      text += String(chunk);
      const lines = text.split("\n");
      text = lines.pop() ?? "";
      for (const line of lines) {
        const [endpoint] = (JSON.parse(line) as FindJson).endpoints;
        if (endpoint === undefined) continue;
        const { node, address, port, labels } = endpoint;
        return { name, host: node, address, port, labels };
      }
    }
    return undefined;
  } finally {
    body.destroy();
  }
}

/** The text with what stands in braces filled in; what is not known is empty. @throws InputError for braces that name nothing */
function formatted(come: Come, format: string): string {
  return format.replace(/\{([^{}]*)\}/g, (_, word: string) => {
    if (word === "port") return String(come.port);
    if (word === "address" || word === "host" || word === "name") return come[word];
    if (word.startsWith("label.")) {
      const key = word.slice("label.".length);
      return Object.hasOwn(come.labels, key) ? (come.labels[key] as string) : "";
    }
    throw new InputError("--format", `"{${word}}" is not known; {address} {port} {host} {name} {label.KEY} are`);
  });
}
