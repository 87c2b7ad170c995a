// `trilith exec`: runs a command on all hosts, or some, whose agents allow it, and prints what they say; by Consul's protocol, so that each side may be a Consul.
import { systemClock } from "../../base/clock.ts";
import { InputError, messageOf } from "../../base/error.ts";
import { type Client, type ClientOptions, clientFlags, clientFor, keyPath, withClient } from "../client.ts";
import type { Command, Io } from "../io.ts";
import { type ClientWith, Session } from "../session.ts";
import { type Audience, audienceFlags, checkAudience, fire } from "../user-event.ts";

interface Options extends ClientOptions, Audience {
  readonly prefix: string;
  readonly shell: boolean;
  readonly wait: string;
  readonly waitRepl: string;
  readonly verbose?: boolean;
}

/** What the agents read [consul: agent/remote_exec.go]. */
interface Job {
  readonly Command?: string;
  readonly Args?: readonly string[];
  /** Base64. */
  readonly Script?: string;
  /** Nanoseconds. */
  readonly Wait: number;
}

const JOB = "job";

export const command: Command = {
  name: "exec",
  summary: "run a command on all hosts, or some, whose agents allow it: trilith exec -service web uptime",
  passThrough: true,
  define(parser, io, done) {
    audienceFlags(
      clientFlags(parser)
        .usage("[flags] <command | -> [arguments...]")
        .argument("[command...]", "what to run; - = a script from standard input"),
    )
      .option("--prefix <prefix>", "the prefix in KV for the job and its results", "_rexec")
      .option("--shell", "run the command in a shell", true)
      .option("--no-shell", "run the command itself, without a shell")
      .option("--wait <duration>", "stop after this long without any output", "2s")
      .option(
        "--wait-repl <duration>",
        "how long the job may take to reach the agents before they are told about it",
        "200ms",
      )
      .option("--verbose", "say what happens")
      .action(async (words: readonly string[], options: Options) => {
        done(await exec(words, options, io));
      });
  },
};

async function durationMs(text: string, flag: string): Promise<number> {
  const { parseGoDuration } = await import("../../protocols/consul/cli.ts");
  const ms = parseGoDuration(text, flag);
  if (ms < 0) throw new InputError(flag, `"${text}": expected a duration of 0 or more`);
  return ms;
}

async function jobOf(words: readonly string[], options: Options, waitMs: number, io: Io): Promise<Job> {
  const { shell } = options;
  const Wait = Math.round(waitMs * 1e6);
  if (words.length === 1 && words[0] === "-") {
    if (!shell) throw new InputError("", "Cannot configure -shell=false when reading from stdin");
    const script = await io.stdin();
    if (script.length === 0) throw new InputError("", "Must specify a command to execute");
    return { Script: Buffer.from(script).toString("base64"), Wait };
  }
  if (words.length === 0) throw new InputError("", "Must specify a command to execute");
  return shell ? { Command: words.join(" "), Wait } : { Args: words, Wait };
}

async function exec(words: readonly string[], options: Options, io: Io): Promise<number> {
  const waitMs = await durationMs(options.wait, "--wait");
  const replicationMs = await durationMs(options.waitRepl, "--wait-repl");
  checkAudience(options);
  const job = await jobOf(words, options, waitMs, io);
  const tell = (text: string): void => {
    if (options.verbose) io.out(`${text}\n`);
  };
  const client = clientFor(options, io);
  /** What is cleaned up is cleaned up also after an interruption. */
  const clientWith: ClientWith = (signal) => clientFor(options, { env: io.env, signal });
  try {
    const fields = await sessionFields(client, options, io, tell);
    const session = await Session.create("the remote execution", fields, clientWith);
    const place = `${options.prefix}/${session.id}/`.replace(/\/{2,}/g, "/").replace(/^\//, "");
    try {
      tell(`Created remote execution session: ${session.id}`);
      const body = JSON.stringify(job);
      const uploaded = await client.send("PUT", `${keyPath(place + JOB)}?acquire=${session.id}`, { body });
      if (uploaded.trim() !== "true") {
        io.err("Failed to create job file: failed to acquire key\n");
        return 1;
      }
      tell("Uploaded remote execution spec");
      // An agent that hears of the job should find it.
      await systemClock.sleep(replicationMs, io.signal);
      const told = JSON.stringify({ Prefix: options.prefix, Session: session.id });
      tell(`Fired remote execution event: ${(await fire(client, "_rexec", options, told)).ID}`);
      return await new Results(clientWith, place, session, { waitMs, verbose: options.verbose === true }, io).follow();
    } catch (error) {
      if (!io.signal.aborted) throw error;
      return 1;
    } finally {
      // The session first: nobody can write results any more when they are taken away.
      await session.end();
      await cleanUp(clientWith(new AbortController().signal), place, io);
    }
  } finally {
    await client.close();
  }
}

/** What the session is made of: bound to the agent's own node, in another datacenter to one there. */
async function sessionFields(
  client: Client,
  options: Options,
  io: Io,
  tell: (text: string) => void,
): Promise<Readonly<Record<string, unknown>>> {
  const own = { Name: "Remote Exec", Behavior: "delete" };
  if (options.datacenter === undefined) return own;
  const { datacenter: _, ...here } = options;
  const { Config } = await withClient(here, io, (asking) =>
    asking.get<{ Config: { Datacenter: string; NodeName: string } }>("/v1/agent/self"),
  );
  if (Config.Datacenter.toLowerCase() === options.datacenter.toLowerCase()) return own;
  tell("Remote exec in foreign datacenter, using Session TTL");
  const servers = await client.get<{ Node: { Node: string } }[]>("/v1/health/service/consul?passing");
  const [first] = servers;
  if (first === undefined) throw new InputError("--datacenter", "Failed to find Consul server in remote datacenter");
  const Name = `Remote Exec via ${Config.NodeName}@${Config.Datacenter}`;
  return { ...own, Name, Node: first.Node.Node, Checks: [] };
}

async function cleanUp(client: Client, place: string, io: Io): Promise<void> {
  try {
    await client.send("DELETE", `${keyPath(place)}?recurse`, { headTimeoutMs: 5_000 });
  } catch (error) {
    io.err(`Failed to remove ${place} from KV: ${messageOf(error)}\n`);
  } finally {
    await client.close();
  }
}

/** What the agents write below the job, printed as it comes. */
class Results {
  readonly #clientWith: ClientWith;
  readonly #place: string;
  readonly #session: Session;
  readonly #waitMs: number;
  readonly #verbose: boolean;
  readonly #io: Io;
  readonly #over = new AbortController();
  readonly #seen = new Set<string>();
  /** Characters may be cut where a piece ends. */
  readonly #decoders = new Map<string, InstanceType<typeof TextDecoder>>();
  #quiet: { cancel(): void } | undefined;
  #acknowledged = 0;
  #completed = 0;
  #failed = 0;

  constructor(
    clientWith: ClientWith,
    place: string,
    session: Session,
    how: { readonly waitMs: number; readonly verbose: boolean },
    io: Io,
  ) {
    this.#clientWith = clientWith;
    this.#place = place;
    this.#session = session;
    this.#waitMs = how.waitMs;
    this.#verbose = how.verbose;
    this.#io = io;
  }

  /** Until nothing has come for the wait, or twice that while somebody is at work. The exit code is 2 where something failed. */
  async follow(): Promise<number> {
    const began = systemClock.monotonic();
    const lost = this.#session.lost.signal;
    const until = AbortSignal.any([this.#over.signal, this.#io.signal, lost]);
    const client = this.#clientWith(until);
    this.#listen();
    try {
      for (let index = "0"; !until.aborted; ) index = await this.#look(client, index);
    } catch (error) {
      if (!until.aborted) {
        this.#io.err(`Failed to read results: ${messageOf(error)}\n`);
        return 1;
      }
    } finally {
      this.#quiet?.cancel();
      await client.close();
    }
    if (lost.aborted) this.#io.err(`${messageOf(lost.reason)}\n`);
    if (!this.#over.signal.aborted) return 1;
    this.#io.out(`${this.#completed} / ${this.#acknowledged} node(s) completed / acknowledged\n`);
    if (this.#verbose) this.#io.out(`Completed in ${((systemClock.monotonic() - began) / 1000).toFixed(2)} seconds\n`);
    return this.#failed > 0 || this.#completed < this.#acknowledged ? 2 : 0;
  }

  /** Begins to wait anew. */
  #listen(): void {
    this.#quiet?.cancel();
    const waitMs = this.#acknowledged > this.#completed ? 2 * this.#waitMs : this.#waitMs;
    this.#quiet = systemClock.after(waitMs, () => this.#over.abort(), true);
  }

  async #look(client: Client, index: string): Promise<string> {
    const wait = Math.max(100, Math.round(this.#waitMs));
    const path = `${keyPath(this.#place)}?keys&wait=${wait}ms&index=${index}`;
    const answer = await client.request("GET", path, { missing: true, headTimeoutMs: 0 });
    const text = await answer.text();
    const now = String(answer.headers["x-consul-index"] ?? "0");
    const all = answer.status === 404 ? [] : (JSON.parse(text) as string[]);
    const news = all.filter((key) => !this.#seen.has(key)).map((key) => [key, key.slice(this.#place.length)] as const);
    // The last words of a command before its end.
    for (const kind of [/^job$/, /\/ack$/, /\/out\/[^/]+$/, /\/exit$/, /^/])
      for (const [key, name] of news)
        if (kind.test(name) && !this.#seen.has(key)) {
          this.#seen.add(key);
          if (name === JOB) continue;
          await this.#take(client, key, name);
          this.#listen();
        }
    return now;
  }

  async #take(client: Client, key: string, name: string): Promise<void> {
    const [, node = "", kind] = /^(.*)\/(ack|exit|out\/[^/]+)$/.exec(name) ?? [];
    if (kind === undefined) return this.#io.err(`Unknown key '${name}', ignoring.\n`);
    if (kind === "ack") {
      this.#acknowledged++;
      if (this.#verbose) this.#say(node, "acknowledged");
      return;
    }
    const answer = await client.request("GET", `${keyPath(key)}?raw`, { missing: true });
    const pieces: Buffer[] = [];
    for await (const piece of answer.body) pieces.push(piece as Buffer);
    const bytes = Buffer.concat(pieces);
    if (answer.status === 404) return this.#io.err(`Failed to read key '${key}': it is gone\n`);
    if (kind === "exit") {
      const text = Buffer.from(bytes).toString("utf8");
      if (!/^-?\d+$/.test(text)) return this.#io.err(`Failed to parse exit code '${text}'\n`);
      this.#completed++;
      if (Number(text) !== 0) this.#failed++;
      this.#say(node, `finished with exit code ${Number(text)}`);
    } else if (bytes.length > 0) this.#print(node, "   ", this.#decoded(node, bytes));
    else if (this.#verbose) this.#say(node, "heartbeat received");
  }

  #decoded(node: string, bytes: Uint8Array): string {
    const decoder = this.#decoders.get(node) ?? new TextDecoder();
    this.#decoders.set(node, decoder);
    return decoder.decode(bytes, { stream: true });
  }

  #say(node: string, text: string): void {
    this.#print(node, "==>", text);
  }

  #print(node: string, arrow: string, text: string): void {
    this.#io.out(
      text
        .split("\n")
        .map((line) => `${arrow} ${node}: ${line}\n`)
        .join(""),
    );
  }
}
