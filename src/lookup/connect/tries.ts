// One connection to a service: backend after backend in the balancer's order, until one takes it or the time is over.
import type { Clock } from "../../base/clock.ts";
import { codeOf, messageOf, TrilithError } from "../../base/error.ts";
import { hostPort } from "../../base/net.ts";
import type { Intake, Socket, Tcp } from "../../base/tcp.ts";
import type { Backend, Backends, ConnectOptions } from "../../contracts/connect.ts";
import type { Query } from "../../model/query.ts";
import type { Balancer, Target } from "../balance/balancer.ts";
import type { FindBackends } from "./backends.ts";
import { lookAround } from "./look.ts";
import { subjectOfQuery } from "./subject.ts";

/** What connecting needs of an agent or a program. */
export interface Reach {
  readonly find: FindBackends;
  readonly balancer: Balancer;
  readonly tcp: Tcp;
  readonly clock: Clock;
  /** Told of a backend that refused: it ends the guard's hold on it. */
  readonly refused?: (service: string, address: string, port: number) => void;
  /** True for addresses at which this same connector listens: reaching them would go round in circles. */
  readonly isOwn?: (address: string, port: number, transport: "tcp" | "udp") => boolean;
}

export interface TryOptions extends Omit<ConnectOptions, "caller"> {
  /** Asked for only where it matters. */
  readonly caller?: string | (() => string);
  readonly signal?: AbortSignal;
  /** Takes what the connection brings; absent: an ordinary socket. */
  readonly intake?: Intake;
  /** Ends it at any time, without a signal of its own for each connection; `signal` then only ends finding backends. */
  readonly cancel?: Cancel;
  /** True: who cannot be asked where the service is may be there in a moment, and is asked again until the time is over. */
  readonly patient?: boolean;
  /** Told of what this host itself is short of, by the system's code: "EMFILE". */
  readonly trouble?: (code: string) => void;
  /** Told of every try in vain. */
  readonly failed?: (backend: Backend, error: unknown) => void;
}

/** Ends one attempt to connect. A signal can do the same; thousands of them a second cost more than what they end. */
export class Cancel {
  reason: Error | undefined;
  /** What is under way: set by whoever waits. */
  now: ((reason: Error) => void) | undefined;

  cancel(reason: Error): void {
    this.reason ??= reason;
    this.now?.(this.reason);
  }
}

/** An open connection, nothing read from it yet; `opened` was told to the balancer. */
export interface Reached {
  readonly socket: Socket;
  readonly target: Target<Backend>;
  readonly retries: number;
  /** How many other backends could have been tried. */
  readonly others: number;
}

const TRY_MS = 1_000;
const LIMIT_MS = 5_000;
/** After all were tried in vain, they are tried again after a pause that doubles up to a limit. */
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 800;
/** This host's own troubles: another backend would not help, a moment may. */
const OWN_TROUBLE = new Set(["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EADDRNOTAVAIL", "EAGAIN"]);

/** The system's code of an error that was wrapped; "ETIMEDOUT" for what took too long. */
export function errnoOf(error: unknown): string {
  for (let each: unknown = error; each instanceof Error; each = each.cause) {
    const { code } = each as { code?: unknown };
    if (typeof code === "string" && /^E[A-Z0-9]+$/.test(code)) return code;
  }
  return codeOf(error) === "timeout" ? "ETIMEDOUT" : "EIO";
}

/** Of what was found, the backends that a caller of this transport can use, each with a port. @throws TrilithError `not-found` where there is none */
export function usableOf(
  { endpoints, known }: Pick<Backends, "endpoints" | "known">,
  { isOwn }: Pick<Reach, "isOwn">,
  query: Query,
  transport: "tcp" | "udp",
  port = 0,
): readonly Backend[] {
  const isUsable = ({ address, port: own, transport: only }: Backend): boolean =>
    own !== 0 && (only === undefined || only === transport) && isOwn?.(address, own, transport) !== true;
  // As a rule all are, and the list stays the same one.
  const usable = endpoints.every(isUsable)
    ? endpoints
    : endpoints.map((each) => (each.port === 0 ? { ...each, port } : each)).filter(isUsable);
  if (usable.length > 0) return usable;
  const name = subjectOfQuery(query);
  if (!known) throw new TrilithError("not-found", `there is no service "${name}"`);
  throw new TrilithError(
    "not-found",
    endpoints.length === 0
      ? `service "${name}" has no instance that fits and is healthy`
      : `service "${name}" has no instance that is reached over ${transport.toUpperCase()}`,
  );
}

const NOBODY_YET: readonly Backend[] = [];

/** See the first line. @throws TrilithError `not-found`, `unavailable`, `timeout`, or the signal's reason */
export async function reachService(reach: Reach, query: Query, options: TryOptions): Promise<Reached> {
  const { clock, balancer } = reach;
  const { limitMs = LIMIT_MS, signal, cancel, caller } = options;
  const mustGoOn = (): void => {
    signal?.throwIfAborted();
    if (cancel?.reason !== undefined) throw cancel.reason;
  };
  const name = subjectOfQuery(query);
  const untilMs = clock.monotonic() + limitMs;
  const inVain: { backend: Backend; error: unknown }[] = [];
  let retries = 0;
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
    const asked = reach.find(query, signal);
    // What is known already is not waited for.
    const found =
      asked instanceof Promise
        ? await asked.catch((error: unknown) => {
            if (options.patient !== true || codeOf(error) !== "unavailable" || untilMs - clock.monotonic() <= pauseMs)
              throw error;
            return undefined;
          })
        : asked;
    const usable = found === undefined ? NOBODY_YET : usableOf(found, reach, query, "tcp", options.port);
    const policy = options.policy ?? found?.policy;
    let order = balancer.order(name, usable, {
      ...(policy === undefined ? {} : { policy }),
      ...(policy !== "sticky" || caller === undefined
        ? {}
        : { caller: typeof caller === "string" ? caller : caller() }),
    });
    const tryMs = options.tryMs ?? found?.tryMs ?? TRY_MS;
    for (let i = 0; i < order.length; i++) {
      const target = order[i] as Target<Backend>;
      mustGoOn();
      const leftMs = untilMs - clock.monotonic();
      if (leftMs <= 0) break;
      const beganMs = clock.monotonic();
      try {
        const socket = await once(reach, target.backend, order.length > 1 ? Math.min(tryMs, leftMs) : leftMs, options);
        balancer.report(target, { ok: true, tookMs: clock.monotonic() - beganMs });
        balancer.opened(target);
        return { socket, target, retries, others: order.length - 1 };
      } catch (error) {
        if (signal?.aborted || cancel?.reason !== undefined) throw error;
        const code = errnoOf(error);
        balancer.report(target, { ok: false, code });
        if (OWN_TROUBLE.has(code)) {
          options.trouble?.(code);
          inVain.push({ backend: target.backend, error });
          break;
        }
        retries++;
        inVain.push({ backend: target.backend, error });
        options.failed?.(target.backend, error);
        if (code === "ECONNREFUSED") reach.refused?.(query.service, target.backend.address, target.backend.port);
        if (code !== "ETIMEDOUT" || order.length - i <= 2) continue;
        // Where one is silent others may be: nobody waits for them one after the other.
        const ms = Math.min(tryMs, untilMs - clock.monotonic());
        order = await around(reach, order.slice(i + 1), ms, options, (backend, why) => {
          retries++;
          inVain.push({ backend, error: why });
        });
        i = -1;
      }
    }
    const leftMs = untilMs - clock.monotonic();
    if (leftMs <= pauseMs) throw nobody(name, inVain);
    await pause(clock, pauseMs, options);
    mustGoOn();
  }
}

/** See `lookAround`. */
async function around(
  { tcp, balancer, clock }: Reach,
  targets: readonly Target<Backend>[],
  ms: number,
  { signal, cancel }: TryOptions,
  failed: (backend: Backend, error: unknown) => void,
): Promise<readonly Target<Backend>[]> {
  const over = new AbortController();
  if (cancel !== undefined) cancel.now = (reason) => over.abort(reason);
  const both = signal === undefined ? over.signal : AbortSignal.any([over.signal, signal]);
  try {
    return await lookAround({ tcp, balancer, clock, errnoOf }, targets, { ms, signal: both, failed });
  } finally {
    if (cancel !== undefined) cancel.now = undefined;
  }
}

/** Ends early where nobody waits any more. */
async function pause(clock: Clock, ms: number, { signal, cancel }: TryOptions): Promise<void> {
  if (cancel === undefined) return await clock.sleep(ms, signal);
  await new Promise<void>((resolve) => {
    const timer = clock.after(ms, resolve, true);
    cancel.now = () => {
      timer.cancel();
      resolve();
    };
  });
  cancel.now = undefined;
}

/** One try. */
function once({ tcp, clock }: Reach, backend: Backend, ms: number, options: TryOptions): Promise<Socket> {
  const { intake, signal, cancel } = options;
  const to = { host: backend.address, port: backend.port };
  const started = (abandon: (reason: unknown) => void): (() => void) => {
    const timer = clock.after(ms, () =>
      abandon(
        new TrilithError(
          "timeout",
          `connecting to ${hostPort(to.host, to.port)}: no answer within ${Math.ceil(ms)} ms`,
        ),
      ),
    );
    if (cancel !== undefined) cancel.now = abandon;
    return () => {
      timer.cancel();
      if (cancel !== undefined) cancel.now = undefined;
    };
  };
  // Whoever can cancel has one signal for many connections, which would gather listeners.
  if (intake !== undefined && cancel !== undefined) return tcp.connect(to, { intake, started });
  return tcp.connect(to, {
    started,
    ...(signal === undefined ? {} : { signal }),
    ...(intake === undefined ? {} : { intake }),
  });
}

function nobody(name: string, inVain: readonly { readonly backend: Backend; readonly error: unknown }[]): TrilithError {
  const last = new Map(inVain.map(({ backend, error }) => [hostPort(backend.address, backend.port), messageOf(error)]));
  const all = [...last.values()];
  const more = all.length > 3 ? `; and ${all.length - 3} more` : "";
  const code = inVain.every(({ error }) => codeOf(error) === "timeout") ? "timeout" : "unavailable";
  return new TrilithError(
    code,
    `no instance of "${name}" could be reached: ${all.slice(0, 3).join("; ")}${more}`,
    inVain.at(-1)?.error,
  );
}
