// Remote execution, as `consul exec` asks for it: an event names a job in KV, the agent runs it and writes what becomes of it below the job. Off unless this host's own configuration switches it on.
import { InputError, messageOf, TrilithError } from "../../base/error.ts";
import type { Finished } from "../../base/process.ts";
import type { Ground } from "../../contracts/ground.ts";
import type { UserEvent } from "../../model/event.ts";
import { type Entry, scope } from "../../model/record.ts";

/** The event that names a job. Its payload is `{"Prefix", "Session"}`; the job lies at `<prefix>/<session>/job`. */
const EXEC_EVENT = "_rexec";

export interface RemoteExecBase
  extends Pick<Ground, "clock" | "random" | "log" | "disk" | "processes" | "directory" | "kv" | "events" | "self"> {
  /** What the configuration says (`disable_remote_exec = false`); commands run only where scripts from the API are allowed, too. */
  readonly wanted: boolean;
}

/** Listens for jobs until stopped. */
export interface RemoteExec {
  start(): void;
  /** Ends what runs, and tells those who asked. */
  stop(): Promise<void>;
}

/** Output is handed on in pieces of this size, or when this much time has passed since its first byte. */
const PIECE_BYTES = 4096;
const PIECE_MS = 500;
/** A command that says more than the directory takes: beyond this, what it says is left out. */
const BACKLOG_BYTES = 4 << 20;
/** How long a command that was told to end may take before it is killed. */
const GRACE_MS = 1000;
const DEFAULT_WAIT_MS = 2000;
const LEAST_WAIT_MS = 100;
/** Consul's exit code for what could not be run. */
const NOT_RUN = 255;

interface Job {
  /** Where it lies, without a slash at the end. */
  readonly at: string;
  readonly session: string;
  readonly command: readonly string[] | string;
  /** A script to be put into a file and run; then `command` is "". */
  readonly script: Uint8Array | undefined;
  /** Without output a sign of life is written so often. */
  readonly waitMs: number;
}

/** Nothing runs yet. */
export function createRemoteExec(base: RemoteExecBase): RemoteExec {
  const { clock, random, disk, processes, directory, kv, events, self } = base;
  const log = base.log.part("remote-exec");
  const enabled = base.wanted && self.scripts.fromApi && self.client !== true;
  const life = new AbortController();
  const running = new Set<Promise<void>>();
  let following: Promise<void> | undefined;

  async function follow(): Promise<void> {
    if (base.wanted && !enabled)
      log.warn(
        self.client === true
          ? "remote execution stays off: a client host hears no events of its own"
          : "remote execution stays off: disable_remote_exec = false needs enable_script_checks = true, too",
      );
    await directory.ready(life.signal);
    let seen: ReadonlySet<string> = new Set();
    for (;;) {
      const view = directory.view();
      const all = events.list();
      for (const event of all) if (event.name === EXEC_EVENT && !seen.has(event.id)) take(event);
      seen = new Set(all.map(({ id }) => id));
      await directory.changed(events.scope, view.at(events.scope), life.signal);
    }
  }

  function take(event: UserEvent): void {
    if (!enabled) {
      log.info("ignoring remote exec event, disabled.", { event: event.id });
      return;
    }
    log.debug("received remote exec event", { event: event.id });
    const work = handle(event)
      .catch((error: unknown) => {
        if (!life.signal.aborted) log.error("a remote exec event failed", { event: event.id, error: messageOf(error) });
      })
      .finally(() => running.delete(work));
    running.add(work);
  }

  /** The job that an event names, once it can be read here. */
  async function jobOf(event: UserEvent): Promise<Job | undefined> {
    const { at, session } = placeIn(event.payload);
    let held: Entry<"kv"> | undefined = kv.get(`${at}/job`);
    if (held === undefined) {
      // With a shared store the event may be here before the job is.
      await directory.barrier(life.signal);
      held = kv.get(`${at}/job`);
    }
    if (held === undefined) return undefined;
    if (held.session !== session)
      throw new TrilithError("invalid", `${at}/job is not held by the session that the event names`);
    return readJob(at, session, held.value);
  }

  async function handle(event: UserEvent): Promise<void> {
    const job = await jobOf(event);
    if (job === undefined) return log.warn("remote exec missing job spec: who asked has gone", { event: event.id });
    /** False: nobody waits for it any more. */
    const write = async (name: string, value: string | Uint8Array): Promise<boolean> => {
      const bytes = typeof value === "string" ? Buffer.from(value) : value;
      try {
        return await kv.set(`${job.at}/${self.node}/${name}`, bytes, { acquire: job.session });
      } catch (error) {
        if (error instanceof InputError && error.where === "acquire") return false;
        throw error;
      }
    };
    if (!(await write("ack", ""))) return;
    const code = await runJob(job, write);
    if (code !== undefined) await write("exit", String(code));
  }

  /** The exit code; undefined where nobody waits for it any more. */
  async function runJob(
    job: Job,
    write: (name: string, value: string | Uint8Array) => Promise<boolean>,
  ): Promise<number | undefined> {
    const end = new AbortController();
    const onStop = (): void => end.abort(life.signal.reason);
    life.signal.addEventListener("abort", onStop, { once: true });
    if (life.signal.aborted) onStop();
    const file =
      job.script === undefined ? undefined : `${processes.env("TMPDIR") || "/tmp"}/trilith-rexec-${random.uuid()}`;
    const pieces = new Pieces(clock);
    const gone = untilGone(job, end);
    try {
      if (file !== undefined) await disk.replace(file, job.script ?? "", 0o750);
      const shell = processes.env("SHELL") || "/bin/sh";
      const line = typeof job.command === "string" ? [shell, "-c", file ?? job.command] : job.command;
      log.info("remote exec script", { script: line.join(" ") });
      const ended = processes
        .run(line, {
          signal: end.signal,
          keepBytes: 0,
          graceMs: GRACE_MS,
          onOutput: (chunk) => pieces.add(chunk),
        })
        .then(
          (finished: Finished): number => finished.exitCode ?? -1,
          (error: unknown): number => {
            const why = end.signal.aborted ? end.signal.reason : error;
            log.info("a remote exec script was not run to its end", { error: messageOf(why) });
            pieces.add(Buffer.from(`${messageOf(why)}\n`));
            return NOT_RUN;
          },
        )
        .finally(() => pieces.end());
      for (let number = 0; ; number++) {
        const piece = await pieces.next(job.waitMs);
        if (piece === undefined) return await ended;
        // A sign of life where it is empty.
        if (await write(`out/${number.toString(16).padStart(5, "0")}`, piece)) continue;
        end.abort(abandoned());
        await ended;
        return undefined;
      }
    } finally {
      // Also where the directory did not take what was written.
      end.abort(abandoned());
      life.signal.removeEventListener("abort", onStop);
      await gone;
      if (file !== undefined) await disk.remove(file);
    }
  }

  /** Ends a job whose session is gone: whoever asked has what he wanted, or does not wait any longer. */
  async function untilGone(job: Job, end: AbortController): Promise<void> {
    const key = `${job.at}/job`;
    try {
      for (;;) {
        const view = directory.view();
        if (view.get("kv", key)?.session !== job.session) break;
        await directory.changed(scope.kv(key), view.at(scope.kv(key)), end.signal);
      }
      end.abort(abandoned());
    } catch (error) {
      end.abort(error);
    }
  }

  return {
    start() {
      following ??= follow().catch((error: unknown) => {
        if (!life.signal.aborted) log.error("remote exec events are not heard any more", { error: messageOf(error) });
      });
    },
    async stop() {
      life.abort(new TrilithError("stopped", "the agent is stopping"));
      await following;
      await Promise.all(running);
    },
  };
}

const abandoned = (): TrilithError => new TrilithError("stopped", "nobody waits for this remote execution any more");

/** Texts, numbers and lists of a JSON object, or what is wrong with it. */
function objectIn(bytes: Uint8Array, what: string): Readonly<Record<string, unknown>> {
  let raw: unknown;
  try {
    raw = JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch (error) {
    throw new TrilithError("invalid", `${what} is not JSON: ${messageOf(error)}`, error);
  }
  if (typeof raw !== "object" || raw === null || Array.isArray(raw))
    throw new TrilithError("invalid", `${what}: expected an object`);
  return raw as Readonly<Record<string, unknown>>;
}

function placeIn(payload: Uint8Array): { readonly at: string; readonly session: string } {
  const { Prefix: prefix, Session: session } = objectIn(payload, "the payload of a remote exec event");
  if (typeof prefix !== "string" || typeof session !== "string" || session === "")
    throw new TrilithError("invalid", "the payload of a remote exec event: expected Prefix and Session");
  return { at: `${prefix}/${session}`.replace(/\/{2,}/g, "/").replace(/^\//, ""), session };
}

function readJob(at: string, session: string, value: Uint8Array): Job {
  const { Command: command = "", Args: args, Script: script, Wait: wait = 0 } = objectIn(value, `${at}/job`);
  const wrong = (what: string): never => {
    throw new TrilithError("invalid", `${at}/job: ${what}`);
  };
  if (typeof command !== "string") return wrong("Command: expected a text");
  if (typeof wait !== "number") return wrong("Wait: expected nanoseconds");
  if (script !== undefined && script !== null && typeof script !== "string") return wrong("Script: expected base64");
  const list: unknown = args ?? [];
  if (!Array.isArray(list) || !list.every((each) => typeof each === "string")) return wrong("Args: expected texts");
  const hasScript = typeof script === "string" && script !== "";
  if (command === "" && list.length === 0 && !hasScript) return wrong("there is nothing to run");
  return {
    ...{ at, session },
    command: list.length > 0 ? (list as string[]) : command,
    script: hasScript && list.length === 0 ? Buffer.from(script, "base64") : undefined,
    waitMs: wait > 0 ? Math.max(LEAST_WAIT_MS, wait / 1e6) : DEFAULT_WAIT_MS,
  };
}

/** Collects what a command says and gives it out in pieces. */
class Pieces {
  readonly #clock: Ground["clock"];
  #chunks: Uint8Array[] = [];
  #bytes = 0;
  #leftOut = 0;
  #ended = false;
  #moved: () => void = () => {};

  constructor(clock: Ground["clock"]) {
    this.#clock = clock;
  }

  add(chunk: Uint8Array): void {
    if (this.#bytes >= BACKLOG_BYTES) {
      this.#leftOut += chunk.length;
      return;
    }
    this.#push(chunk);
    this.#moved();
  }

  end(): void {
    this.#ended = true;
    this.#moved();
  }

  #push(chunk: Uint8Array): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
  }

  /** The next piece; empty after `waitMs` without a word; undefined when all has been given out. */
  async next(waitMs: number): Promise<Uint8Array | undefined> {
    await this.#until(() => this.#bytes > 0, waitMs);
    if (this.#bytes === 0) return this.#ended ? undefined : new Uint8Array();
    await this.#until(() => this.#bytes >= PIECE_BYTES, PIECE_MS);
    const piece = this.#shift();
    if (this.#leftOut > 0 && this.#bytes < BACKLOG_BYTES / 2) {
      this.#push(Buffer.from(`\n… ${this.#leftOut} bytes left out: they came faster than they could be handed on …\n`));
      this.#leftOut = 0;
    }
    return piece;
  }

  /** Takes what makes one piece from the front. */
  #shift(): Uint8Array {
    const taken: Uint8Array[] = [];
    let missing = Math.min(PIECE_BYTES, this.#bytes);
    this.#bytes -= missing;
    let whole = 0;
    for (; missing > 0; whole++) {
      const chunk = this.#chunks[whole] as Uint8Array;
      taken.push(chunk.subarray(0, missing));
      if (chunk.length > missing) {
        this.#chunks[whole] = chunk.subarray(missing);
        break;
      }
      missing -= chunk.length;
    }
    this.#chunks.splice(0, whole);
    return Buffer.concat(taken);
  }

  /** Resolves when it is so, when the command has ended, or after `ms`. */
  #until(isSo: () => boolean, ms: number): Promise<void> {
    if (this.#ended || isSo()) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        timer.cancel();
        this.#moved = () => {};
        resolve();
      };
      const timer = this.#clock.after(ms, done);
      this.#moved = () => {
        if (this.#ended || isSo()) done();
      };
    });
  }
}
