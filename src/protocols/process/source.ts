// The source "process": what wrappers state, and what processes say in their environment. A run belongs to its process: while that lives it stays, with or without its wrapper.
import type { Clock, Timer } from "../../base/clock.ts";
import { codeOf, InputError, messageOf, TrilithError } from "../../base/error.ts";
import type { Handler, IncomingMessage, ServerResponse } from "../../base/http.ts";
import type { Log } from "../../base/log.ts";
import type { Processes } from "../../base/process.ts";
import type { ProcessTable } from "../../base/process-table.ts";
import { isFromHere } from "../../base/requests.ts";
import type { Agent, HeldService } from "../../contracts/agent.ts";
import type { Source, SourceList } from "../../contracts/source.ts";
import type { Registration } from "../../model/instance.ts";
import type { Reason } from "../../model/reason.ts";
import type { CheckOptions } from "../../wire/service-check.ts";
import { lives } from "./ports.ts";
import { Scanner } from "./scanner.ts";
import { carrierOfForeignId, type FoundService, type PlainNames } from "./services.ts";
import {
  type Line,
  parseLine,
  type Reply,
  type RunIdentity,
  registrationsOf,
  runKey,
  runOfForeignId,
} from "./statement.ts";

export interface ProcessMachine {
  readonly clock: Clock;
  readonly log: Log;
  readonly processes: Pick<Processes, "proc" | "exists">;
  /** Present where processes are registered for what their environment says. */
  readonly environ?: { readonly table: ProcessTable; readonly checks: CheckOptions; readonly self: number };
  /** True where a port of a process is registered otherwise, so that what its environment says does not count. */
  readonly announced?: () => (pid: number, protocol: "tcp" | "udp", port: number) => boolean;
  /** Why there is no `environ`, for people, where somebody may expect it. */
  readonly without?: string;
  readonly agent: Pick<Agent, "services" | "report">;
  /** A probe's own reading of a check's detail. @throws TrilithError `invalid` */
  parse(kind: string, detail: Readonly<Record<string, unknown>>): unknown;
}

/** A process whose wrapper is away is looked at so often at first, and after a while at the slowest. */
const LOOK_FIRST_MS = 20;
const LOOK_SLOWEST_MS = 500;
/** How long a program without a wrapper may take to stop before it counts as a service again. */
const STOP_TIMEOUT_MS = 10_000;
const LONGEST_LINE = 1 << 20;
/** The first list waits so long at the most until all processes were looked at. */
const FIRST_LOOK_MS = 3000;

/** One program under a wrapper. */
interface Run extends RunIdentity {
  registrations: readonly Registration[];
  /** What the registrations were made from, to know a repetition. */
  stated: string;
  /** The wrapper's stream; undefined while it is away. */
  stream: Stream | undefined;
  /** When the wrapper went away (monotonic). */
  aloneAt: number;
}

/** One wrapper's connection. */
interface Stream {
  run: Run | undefined;
  /** The number of the last line that is in the list, and of the last one acknowledged. */
  read: number;
  taken: number;
  reply(reply: Reply): void;
}

export interface ProcessSource extends Source {
  readonly handle: Handler;
  /** Something changed that decides which of the processes count: the list is stated again. */
  ring(): void;
  /** Looks for processes that say in their environment what they are, from now on or no longer; runs under wrappers go on. */
  scan(environ: ProcessMachine["environ"]): void;
}

/** The source of this host's processes: found by their environment, announced, advertised, or run under `trilith run`. */
export function createProcessSource(machine: ProcessMachine): ProcessSource {
  return new Runs(machine);
}

class Runs implements ProcessSource {
  readonly name = "process";
  readonly handle: Handler = (request, response) => this.serve(request, response);
  private readonly machine: ProcessMachine;
  private readonly runs = new Map<string, Run>();
  private readonly streams = new Set<Stream>();
  private gone = new Map<string, Reason>();
  private changed = false;
  private wake: (() => void) | undefined;
  private restored = false;
  private lookMs = LOOK_FIRST_MS;
  private readonly plain: PlainNames = new Map();
  private scanner: Scanner | undefined;
  /** Ends the present reading of lists: it is begun anew with another scanner, or none. */
  private over = new AbortController();
  /** What the agent's list holds of processes with words of their own, until all were looked at. */
  private held: readonly FoundService[] = [];
  private last: readonly FoundService[] = [];
  private lookedAll: (() => void) | undefined;

  constructor(machine: ProcessMachine) {
    this.machine = machine;
    this.scan(machine.environ);
  }

  scan(environ: ProcessMachine["environ"]): void {
    if ((environ === undefined) === (this.scanner === undefined)) return;
    this.scanner = environ === undefined ? undefined : new Scanner({ ...this.machine, ...environ }, this.plain);
    this.held = this.last;
    this.over.abort();
  }

  state(): { readonly ok: boolean; readonly text: string } {
    const all = this.runs.size;
    const alone = [...this.runs.values()].filter((run) => run.stream === undefined).length;
    const text =
      all === 0
        ? "nothing runs under `trilith run`"
        : `${all} ${all === 1 ? "program" : "programs"} under \`trilith run\``;
    const wrapped = alone === 0 ? text : `${text}, ${alone} without a wrapper`;
    const spoken = this.scanner?.text() ?? this.machine.without;
    return { ok: true, text: spoken === undefined ? wrapped : `${spoken}; ${wrapped}` };
  }

  ring(): void {
    this.changed = true;
    this.wake?.();
  }

  async *watch(signal: AbortSignal): AsyncIterable<SourceList> {
    while (!signal.aborted) {
      this.over = new AbortController();
      yield* this.lists(AbortSignal.any([signal, this.over.signal]));
    }
  }

  private async *lists(signal: AbortSignal): AsyncIterable<SourceList> {
    const { clock } = this.machine;
    const stop = (): void => this.wake?.();
    signal.addEventListener("abort", stop, { once: true });
    let scanning: Promise<void> | undefined;
    try {
      if (!this.restored) {
        this.restored = true;
        await this.restore();
      }
      // It may have been stopped meanwhile, and nobody looks then.
      if (this.scanner !== undefined && !signal.aborted) {
        const looked = new Promise<void>((resolve) => {
          this.lookedAll = resolve;
          if (this.scanner?.complete) resolve();
        });
        scanning = this.scanner.run(signal, () => {
          this.lookedAll?.();
          this.ring();
        });
        const timer = clock.after(FIRST_LOOK_MS, () => this.lookedAll?.());
        signal.addEventListener("abort", () => this.lookedAll?.(), { once: true });
        await looked;
        timer.cancel();
      }
      this.changed = true;
      while (!signal.aborted) {
        if (this.changed) {
          this.changed = false;
          const spoken = await this.spoken();
          const gone = this.gone;
          this.gone = new Map();
          const marks = [...this.streams].map((stream) => [stream, stream.read] as const);
          const list = [...this.runs.values()].flatMap((run) => run.registrations);
          const complaints = this.scanner?.services.complaints ?? [];
          yield {
            list: [...list, ...spoken.map(({ registration }) => registration)],
            authority: "first-hand",
            ...(gone.size > 0 ? { gone } : {}),
            ...(complaints.length > 0 ? { complaints } : {}),
          };
          // Asking for more says that the agent's list has it.
          for (const [stream, read] of marks)
            if (read > stream.taken) {
              stream.taken = read;
              stream.reply({ taken: read });
            }
          continue;
        }
        let timer: Timer | undefined;
        await new Promise<void>((resolve) => {
          this.wake = resolve;
          if (this.changed || signal.aborted) return resolve();
          if ([...this.runs.values()].some((run) => run.stream === undefined)) {
            timer = clock.after(this.lookMs, resolve);
            this.lookMs = Math.min(this.lookMs * 1.5, LOOK_SLOWEST_MS);
          }
        });
        this.wake = undefined;
        timer?.cancel();
        if (!signal.aborted) await this.look();
      }
    } finally {
      signal.removeEventListener("abort", stop);
      // Who takes no further list gives no signal: the looking has to be told.
      this.over.abort();
      await scanning;
    }
  }

  /** The services of processes that say so themselves and are not registered otherwise; tells why those are gone that were there. */
  private async spoken(): Promise<readonly FoundService[]> {
    const all = this.scanner === undefined || this.scanner.complete ? (this.scanner?.services.found ?? []) : this.held;
    const stated = new Set<string>();
    for (const run of this.runs.values())
      for (const { port, foreignId } of run.registrations)
        stated.add(`${run.pid} ${foreignId?.endsWith("/udp") ? "udp" : "tcp"} ${port}`);
    const announced = this.machine.announced?.() ?? (() => false);
    const otherwise = ({ pid, protocol, port }: FoundService): boolean =>
      stated.has(`${pid} ${protocol} ${port}`) || announced(pid, protocol, port);
    const now = all.filter((one) => !otherwise(one));
    const ids = new Set(now.map(({ registration }) => registration.id));
    for (const one of this.last) {
      const { pid, startTicks, port, registration } = one;
      if (ids.has(registration.id)) continue;
      const why =
        this.scanner === undefined
          ? this.reason("deregistered", "the configuration of process no longer asks for what environments say")
          : !(await this.lives(pid, startTicks))
            ? this.reason("died", `process ${pid} ended`)
            : otherwise(one)
              ? this.reason("stopped", `port ${port} of process ${pid} is announced or advertised itself`)
              : this.reason(
                  "stopped",
                  `process ${pid} does not listen on port ${port} any more, or says something else`,
                );
      this.gone.set(registration.id, why);
    }
    this.last = now;
    return now;
  }

  /** What the agent's durable list holds of runs whose process still lives: their wrappers come back, or not. */
  private async restore(): Promise<void> {
    const held = new Map<string, RunIdentity & { services: HeldService[] }>();
    const before: FoundService[] = [];
    for (const service of this.machine.agent.services().values()) {
      const { origin } = service.instance;
      const carrier = origin.source === this.name ? carrierOfForeignId(origin.foreignId ?? "") : undefined;
      if (carrier !== undefined) {
        const registration = registrationOf(service);
        const protocol = origin.foreignId?.endsWith("/udp") ? "udp" : "tcp";
        const { port, name, id } = registration;
        before.push({ ...carrier, protocol, port, registration });
        // The one that bears the name which the others have with their port behind it.
        if (!name.endsWith(`-${port}`) && id.startsWith(`${name}:`))
          this.plain.set(`${carrier.pid}:${carrier.startTicks}`, `${protocol}:${port}`);
        continue;
      }
      const run = origin.source === this.name ? runOfForeignId(origin.foreignId ?? "") : undefined;
      if (run === undefined) continue;
      const key = runKey(run);
      const known = held.get(key);
      if (known === undefined) held.set(key, { ...run, services: [service] });
      else known.services.push(service);
    }
    for (const [key, { pid, start, part, services }] of held) {
      const isAlive = await this.lives(pid, start);
      // Its wrapper may have come back before, or meanwhile.
      if (this.runs.has(key)) continue;
      if (isAlive)
        this.runs.set(key, {
          pid,
          start,
          part,
          stated: "",
          stream: undefined,
          aloneAt: this.machine.clock.monotonic(),
          registrations: services.map(registrationOf),
        });
      else
        for (const { instance } of services)
          this.gone.set(instance.id, this.reason("died", `process ${pid} ended while no agent was running`));
    }
    this.held = before;
    this.last = before;
  }

  private reason(code: "died" | "stopped" | "deregistered", text: string): Reason {
    return { code, text, confirmed: true, atMs: this.machine.clock.now() };
  }

  private lives(pid: number, start: number): Promise<boolean> {
    return lives(this.machine.processes, pid, start);
  }

  /** Looks at the processes whose wrappers are away. */
  private async look(): Promise<void> {
    for (const [key, run] of this.runs) {
      if (run.stream !== undefined) continue;
      const isAlive = await this.lives(run.pid, run.start);
      // Its wrapper may have come back meanwhile.
      if (run.stream !== undefined) continue;
      if (isAlive) this.endDrain(run);
      else this.end(key, run, this.reason("died", `process ${run.pid} is gone, and so is its wrapper`));
    }
  }

  /** A program that was to stop, whose wrapper went away meanwhile, and that still runs, is a service again. */
  private endDrain(run: Run): void {
    const draining = run.registrations.some((registration) => registration.draining === true);
    if (!draining || this.machine.clock.monotonic() - run.aloneAt < STOP_TIMEOUT_MS) return;
    run.stated = "";
    run.registrations = run.registrations.map(({ draining: _draining, ...rest }) => rest);
    this.ring();
  }

  private end(key: string, run: Run, why: Reason): void {
    if (this.runs.get(key) !== run) return;
    this.runs.delete(key);
    for (const { id } of run.registrations) this.gone.set(id, why);
    this.ring();
  }

  private async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const refuse = (status: number, text: string, headers: Record<string, string> = {}): void => {
      response.writeHead(status, { "content-type": "text/plain; charset=utf-8", connection: "close", ...headers });
      response.end(`${text}\n`);
    };
    if (!isFromHere(request)) return refuse(403, "only programs on this host can be registered by `trilith run`");
    if (request.method !== "POST") return refuse(405, `method ${request.method} not allowed`, { allow: "POST" });
    // Web pages cannot send this type to another origin unasked.
    if (!/^application\/x-ndjson\b/i.test(request.headers["content-type"] ?? ""))
      return refuse(415, "expected lines of JSON with the content type application/x-ndjson");
    response.writeHead(200, { "content-type": "application/x-ndjson", "cache-control": "no-store" });
    response.flushHeaders();
    response.on("error", () => {});
    const stream: Stream = {
      run: undefined,
      read: 0,
      taken: 0,
      reply: (reply) => {
        if (!response.writableEnded && !response.destroyed) response.write(`${JSON.stringify(reply)}\n`);
      },
    };
    this.streams.add(stream);
    try {
      // The request must outlive the loop: destroying it would take the reply with it.
      for await (const line of linesOf(request.iterator({ destroyOnReturn: false })))
        await this.take(stream, parseLine(line));
    } catch (error) {
      if (codeOf(error) === "invalid" || codeOf(error) === "too-large") {
        this.machine.log.warn(`a wrapper's statement was not taken: ${messageOf(error)}`);
        stream.reply({ error: messageOf(error) });
      }
      // Anything else is the connection that broke: what counts then is the process.
    } finally {
      this.streams.delete(stream);
      response.end(() => request.destroy());
      const { run } = stream;
      if (run !== undefined && run.stream === stream) {
        run.stream = undefined;
        run.aloneAt = this.machine.clock.monotonic();
        this.lookMs = LOOK_FIRST_MS;
        this.wake?.();
      }
    }
  }

  private async take(stream: Stream, line: Line): Promise<void> {
    if ("report" in line) {
      const { check, status, output } = line.report;
      await this.machine.agent.report(check, { status, output }).catch((error: unknown) => {
        // The check may not be in the list yet, or not any more; the next result will tell.
        if (codeOf(error) !== "not-found") throw error;
      });
      return;
    }
    if ("gone" in line) {
      const { run } = stream;
      stream.read = line.n;
      if (run === undefined) stream.reply({ taken: line.n });
      else {
        run.stream = undefined;
        stream.run = undefined;
        this.end(runKey(run), run, this.reason(line.gone.died ? "died" : "stopped", line.gone.text));
      }
      return;
    }
    const { state } = line;
    const key = runKey(state);
    const stated = JSON.stringify(state);
    const registrations = registrationsOf(state, (kind, detail) => this.machine.parse(kind, detail));
    if (stream.run !== undefined && runKey(stream.run) !== key)
      throw new InputError("pid", "a stream speaks for one process only");
    const known = this.runs.get(key);
    const run = known ?? {
      pid: state.pid,
      start: state.start,
      part: state.part,
      registrations: [],
      stated: "",
      stream: undefined,
      aloneAt: 0,
    };
    this.runs.set(key, run);
    run.stream = stream;
    stream.run = run;
    stream.read = line.n;
    if (run.stated === stated) {
      // Nothing new; what stands is in the agent's list unless the list is on its way there.
      if (this.changed || this.wake === undefined) this.ring();
      else {
        stream.taken = line.n;
        stream.reply({ taken: line.n });
      }
      return;
    }
    for (const { id } of run.registrations)
      if (!registrations.some((one) => one.id === id))
        this.gone.set(id, this.reason("stopped", `process ${state.pid} does not listen there any more`));
    for (const { id } of registrations) this.gone.delete(id);
    run.stated = stated;
    run.registrations = registrations;
    this.ring();
  }
}

/** What was asked for, from what the agent holds. */
function registrationOf({ asked, instance, checks }: HeldService): Registration {
  const { node: _node, origin, ...facts } = instance;
  // What an operator overrides is not what the process said.
  if (origin.overridden !== undefined && asked !== undefined) return asked;
  return {
    ...facts,
    checks,
    ...(origin.foreignId === undefined ? {} : { foreignId: origin.foreignId }),
    ...(origin.text === undefined ? {} : { text: origin.text }),
    ...(asked?.words === undefined ? {} : { words: asked.words }),
  };
}

/** Lines of a stream of UTF-8. @throws TrilithError `too-large` */
async function* linesOf(stream: AsyncIterable<Uint8Array>): AsyncIterable<string> {
  const decoder = new TextDecoder();
  let rest = "";
  const check = (length: number): void => {
    if (length > LONGEST_LINE) throw new TrilithError("too-large", `a line is longer than ${LONGEST_LINE} characters`);
  };
  for await (const chunk of stream) {
    rest += decoder.decode(chunk, { stream: true });
    for (let end = rest.indexOf("\n"); end !== -1; end = rest.indexOf("\n")) {
      const line = rest.slice(0, end);
      rest = rest.slice(end + 1);
      check(line.length);
      if (line.trim() !== "") yield line;
    }
    check(rest.length);
  }
}
