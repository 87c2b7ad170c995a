// Calls to etcd: several members with fail-over, bounded waits, authentication, TLS, and errors sorted by what they mean for a retry.

import { setMaxListeners } from "node:events";
import type { ChannelCredentials, Client, ClientDuplexStream, Metadata, ServiceError } from "@grpc/grpc-js";
import type { Clock } from "../clock.ts";
import type { Disk } from "../disk.ts";
import { type Code, InputError, TrilithError, wrap } from "../error.ts";
import { loadWires, type Method, type Methods, type Wires } from "./proto.ts";

/** How to reach etcd. */
export interface EtcdAccess {
  /** `http://host:port` or `https://host:port` of one or several members. */
  readonly endpoints: readonly string[];
  readonly username?: string;
  readonly password?: string;
  /** PEM files. */
  readonly caFile?: string;
  readonly certFile?: string;
  readonly keyFile?: string;
}

/** How patient a client is; milliseconds. */
export interface ClientTiming {
  /** One request to one member. */
  readonly attemptMs: number;
  /** All attempts of one request together. */
  readonly patienceMs: number;
  /** All attempts together while every member refuses the connection: nothing is on its way, so there is nothing to wait for. */
  readonly refusedMs: number;
  /** A watch that was silent for so long is asked for a sign of life. */
  readonly askMs: number;
  /** A watch that was silent for so long is given up. */
  readonly silentMs: number;
  /** Without a watch for so long etcd counts as away. */
  readonly graceMs: number;
}

export const clientTiming: ClientTiming = {
  attemptMs: 2_000,
  patienceMs: 8_000,
  refusedMs: 2_000,
  askMs: 2_000,
  silentMs: 5_000,
  graceMs: 1_000,
};

/** What a failed call leaves open: `no` = it was not done for sure, `maybe` = it may have been done or be done later. */
export type Done = "no" | "maybe";

/** A failed call to one member. */
export class EtcdError extends TrilithError {
  readonly done: Done;
  /** True where another attempt, perhaps at another member, may succeed. */
  readonly temporary: boolean;
  /** True where no connection came about. */
  readonly refused: boolean;
  /** The gRPC status code; -1 where there was none in time. */
  readonly status: number;
  /** What etcd said. */
  readonly details: string;

  constructor(
    code: Code,
    message: string,
    facts: {
      readonly done: Done;
      readonly temporary: boolean;
      readonly refused?: boolean;
      readonly status: number;
      readonly details: string;
    },
    cause?: unknown,
  ) {
    super(code, message, cause);
    this.done = facts.done;
    this.temporary = facts.temporary;
    this.refused = facts.refused ?? false;
    this.status = facts.status;
    this.details = facts.details;
  }
}

// gRPC status codes [grpc/doc/statuscodes.md].
const CANCELLED = 1;
const INVALID_ARGUMENT = 3;
const DEADLINE_EXCEEDED = 4;
const NOT_FOUND = 5;
const PERMISSION_DENIED = 7;
const RESOURCE_EXHAUSTED = 8;
const FAILED_PRECONDITION = 9;
const OUT_OF_RANGE = 11;
const UNAVAILABLE = 14;
const UNAUTHENTICATED = 16;

/** gRPC's details without what it says around them. */
function plain(details: string): string {
  const [, last = ""] = /Last error: (?:Error: )?(.+?)\.? ?(?:Resolution note: ?)?$/.exec(details) ?? [];
  return last === "" || last === "null" ? details : last;
}

/** Sorts a gRPC error; `doing` names the request and the member. */
export function sortError(error: { readonly code: number; readonly details: string }, doing: string): EtcdError {
  const { code: status, details } = error;
  const make = (
    code: Code,
    done: Done,
    temporary: boolean,
    text: string = plain(details),
    refused = false,
  ): EtcdError => new EtcdError(code, `${doing}: ${text}`, { done, temporary, refused, status, details }, error);
  switch (status) {
    case UNAVAILABLE:
      // Refused before anything was looked at, because every call asks for a leader.
      if (details.includes("etcdserver: no leader")) return make("unavailable", "no", true);
      if (
        /No connection established|ECONNREFUSED|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|Name resolution failed/.test(details)
      )
        return make("unavailable", "no", true, plain(details), true);
      return make("unavailable", "maybe", true);
    case CANCELLED:
    case DEADLINE_EXCEEDED:
      return make("unavailable", "maybe", true);
    case RESOURCE_EXHAUSTED:
      if (details.includes("space exceeded"))
        return make(
          "disk-full",
          "no",
          false,
          `etcd is out of space and takes no writes (${details}); compact and defragment it, then clear the alarm with "etcdctl alarm disarm"`,
        );
      if (/larger than max|too large/.test(details)) return make("too-large", "no", false);
      return make("unavailable", "no", true);
    case INVALID_ARGUMENT:
      if (/too large|too many operations/.test(details)) return make("too-large", "no", false);
      if (details.includes("revision in header is old")) return make("unavailable", "no", true);
      if (/authentication failed|user name is empty|not enabled/.test(details)) return make("not-allowed", "no", false);
      return make("invalid", "no", false);
    case UNAUTHENTICATED:
      return make("not-allowed", "no", true);
    case PERMISSION_DENIED:
      return make("not-allowed", "no", false);
    case NOT_FOUND:
      return make("not-found", "no", false);
    case FAILED_PRECONDITION:
      if (details.includes("authentication is not enabled"))
        return make(
          "not-allowed",
          "no",
          false,
          `${details}, but a user name is set; remove it or run "etcdctl auth enable"`,
        );
      return make("conflict", "no", false);
    case OUT_OF_RANGE:
      return make("damaged", "no", false);
    default:
      return make("internal", "maybe", true);
  }
}

/** True where the revision asked for is compacted away. */
export function isCompacted(error: unknown): boolean {
  return error instanceof EtcdError && error.status === OUT_OF_RANGE && error.details.includes("compacted");
}

/** True where etcd does not know the lease of a put. */
export function isLeaseGone(error: unknown): boolean {
  return error instanceof EtcdError && error.status === NOT_FOUND && error.details.includes("lease not found");
}

/** True where a lease of that ID exists already: an earlier attempt came through. */
export function isLeaseThere(error: unknown): boolean {
  return (
    error instanceof EtcdError && error.status === FAILED_PRECONDITION && error.details.includes("lease already exists")
  );
}

/** One member. */
interface Member {
  readonly url: string;
  readonly channel: Client;
}

/** A watch stream as messages in order. */
export interface Stream {
  readonly url: string;
  send(message: Methods["watch"]["request"]): void;
  /** The next message; undefined after `cancel`. @throws EtcdError when the stream breaks */
  next(): Promise<Methods["watch"]["response"] | undefined>;
  cancel(): void;
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** All attempts together; the client's patience when absent. */
  readonly patienceMs?: number;
  /** Told of every failed attempt. */
  readonly failed?: (error: EtcdError) => void;
}

/** Calls to the members of one etcd cluster. */
export interface EtcdClient {
  /** One request to one member after the other until one answers or patience ends. @throws EtcdError of the last attempt */
  call<M extends Exclude<Method, "watch">>(
    method: M,
    request: Methods[M]["request"],
    options?: CallOptions,
  ): Promise<Methods[M]["response"]>;
  /** Opens a watch stream to the next member in turn that is worth trying. */
  stream(): Promise<Stream>;
  /** The preferred member does not do its duty: prefer the next one. */
  distrust(url: string): void;
  /** The token is worth nothing any more: the next call asks for a new one. */
  forgetToken(): void;
  /** How many members are known. */
  readonly size: number;
  close(): void;
}

/** An endpoint of the settings as gRPC's target and whether it is spoken to with TLS. @throws InputError */
export function parseEndpoint(endpoint: string): { readonly target: string; readonly tls: boolean } {
  const match = /^(https?):\/\/(\[[0-9a-fA-F:.%]+\]|[^/:[\]\s]+):(\d{1,5})\/?$/.exec(endpoint);
  if (match === null || Number(match[3]) > 65_535)
    throw new InputError(
      "etcd.endpoints",
      `"${endpoint}" is no endpoint; write it as "http://host:2379" or "https://host:2379"`,
    );
  return { target: `${match[2]}:${match[3]}`, tls: match[1] === "https" };
}

async function credentials(
  grpc: typeof import("@grpc/grpc-js"),
  settings: EtcdAccess,
  disk: Pick<Disk, "readBytes">,
): Promise<ChannelCredentials> {
  const file = async (key: "caFile" | "certFile" | "keyFile"): Promise<Buffer | null> => {
    const path = settings[key];
    if (path === undefined) return null;
    try {
      return Buffer.from(await disk.readBytes(path));
    } catch (error) {
      throw wrap(error, `etcd.${key} "${path}"`);
    }
  };
  if ((settings.certFile === undefined) !== (settings.keyFile === undefined))
    throw new InputError("etcd", "certFile and keyFile belong together: give both or none");
  return grpc.credentials.createSsl(await file("caFile"), await file("keyFile"), await file("certFile"));
}

/** Builds the client; connects to nobody yet. @throws InputError for wrong settings, TrilithError for unreadable files */
export async function createClient(
  settings: EtcdAccess,
  ground: { readonly clock: Clock; readonly disk: Pick<Disk, "readBytes"> },
  timing: ClientTiming,
): Promise<EtcdClient> {
  const { clock } = ground;
  if (settings.endpoints.length === 0)
    throw new InputError("etcd.endpoints", 'no endpoint is given; name at least one, such as "http://127.0.0.1:2379"');
  if ((settings.username === undefined) !== (settings.password === undefined))
    throw new InputError("etcd", "username and password belong together: give both or none");
  const parsed = settings.endpoints.map((url) => ({ url, ...parseEndpoint(url) }));
  const [grpc, wires] = await Promise.all([import("@grpc/grpc-js"), loadWires()]);
  const secure = parsed.some(({ tls }) => tls) ? await credentials(grpc, settings, ground.disk) : undefined;
  const members: readonly Member[] = parsed.map(({ url, target, tls }) => ({
    url,
    channel: new grpc.Client(target, tls && secure !== undefined ? secure : grpc.credentials.createInsecure(), {
      "grpc.max_receive_message_length": -1,
      "grpc.max_send_message_length": -1,
      // etcd cuts off clients that ping more often than every 5 s.
      "grpc.keepalive_time_ms": 10_000,
      "grpc.keepalive_timeout_ms": 5_000,
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 2_000,
      "grpc.enable_http_proxy": 0,
      "grpc.enable_retries": 0,
      "grpc.service_config_disable_resolution": 1,
      "grpc.use_local_subchannel_pool": 1,
    }),
  }));
  return new Members(grpc, wires, members, settings, clock, timing);
}

class Members implements EtcdClient {
  readonly #grpc: typeof import("@grpc/grpc-js");
  readonly #wires: Wires;
  readonly #members: readonly Member[];
  readonly #settings: EtcdAccess;
  readonly #clock: Clock;
  readonly #timing: ClientTiming;
  readonly #closed = new AbortController();
  /** The member that answered last. */
  #preferred = 0;
  #token: Promise<string> | undefined;

  constructor(
    grpc: typeof import("@grpc/grpc-js"),
    wires: Wires,
    members: readonly Member[],
    settings: EtcdAccess,
    clock: Clock,
    timing: ClientTiming,
  ) {
    this.#grpc = grpc;
    this.#wires = wires;
    this.#members = members;
    this.#settings = settings;
    this.#clock = clock;
    this.#timing = timing;
    // Every call under way listens for the end.
    setMaxListeners(0, this.#closed.signal);
  }

  get size(): number {
    return this.#members.length;
  }

  #member(): Member {
    return this.#members[this.#preferred % this.#members.length] as Member;
  }

  distrust(url: string): void {
    if (this.#member().url === url) this.#preferred = (this.#preferred + 1) % this.#members.length;
  }

  forgetToken(): void {
    this.#token = undefined;
  }

  /** Metadata of a call: fails fast without a leader, carries the token. */
  async #metadata(member: Member, signal: AbortSignal): Promise<Metadata> {
    const metadata = new this.#grpc.Metadata();
    metadata.set("hasleader", "true");
    const { username, password } = this.#settings;
    if (username !== undefined && password !== undefined) {
      this.#token ??= this.#once(
        member,
        "authenticate",
        { name: username, password },
        new this.#grpc.Metadata(),
        signal,
      ).then(({ token }) => token);
      const mine = this.#token;
      try {
        metadata.set("token", await mine);
      } catch (error) {
        if (this.#token === mine) this.#token = undefined;
        // A token that could not be had means that the call itself was never sent.
        throw error instanceof EtcdError
          ? new EtcdError(error.code, error.message, { ...error, done: "no" }, error.cause)
          : error;
      }
    }
    return metadata;
  }

  /** One attempt at one member, ended by time or signal. */
  #once<M extends Exclude<Method, "watch">>(
    member: Member,
    method: M,
    request: Methods[M]["request"],
    metadata: Metadata,
    signal: AbortSignal,
  ): Promise<Methods[M]["response"]> {
    const wire = this.#wires[method];
    const doing = `etcd ${method} at ${member.url}`;
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      let late = false;
      const onAbort = (): void => call.cancel();
      const timer = this.#clock.after(this.#timing.attemptMs, () => {
        late = true;
        call.cancel();
      });
      const end = (): void => {
        timer.cancel();
        signal.removeEventListener("abort", onAbort);
      };
      const fail = (error: { code: number; details: string }): void => {
        end();
        if (late) {
          const details = `no answer within ${this.#timing.attemptMs} ms`;
          reject(
            new EtcdError(
              "unavailable",
              `${doing}: ${details}`,
              { done: "maybe", temporary: true, status: -1, details },
              error,
            ),
          );
        } else reject(signal.aborted ? signal.reason : sortError(error, doing));
      };
      const serialize = wire.serialize as (value: unknown) => Buffer;
      const deserialize = wire.deserialize as (bytes: Buffer) => Methods[M]["response"];
      let call: { cancel(): void };
      if (method === "leaseKeepAlive") {
        // A stream of one message each way: so that a renewal can fail over like any other call.
        const stream = member.channel.makeBidiStreamRequest(wire.path, serialize, deserialize, metadata);
        call = stream;
        stream.once("data", (answer: Methods[M]["response"]) => {
          end();
          resolve(answer);
          stream.end();
        });
        stream.on("error", (error: ServiceError) => fail(error));
        stream.once("end", () => fail({ code: UNAVAILABLE, details: "the stream ended without an answer" }));
        stream.write(request);
      } else
        call = member.channel.makeUnaryRequest(
          wire.path,
          serialize,
          deserialize,
          request,
          metadata,
          {},
          (error, answer) => {
            if (error !== null) return fail(error);
            end();
            resolve(answer as Methods[M]["response"]);
          },
        );
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  async call<M extends Exclude<Method, "watch">>(
    method: M,
    request: Methods[M]["request"],
    options: CallOptions = {},
  ): Promise<Methods[M]["response"]> {
    if (options.signal === undefined) return this.#attempts(method, request, options, this.#closed.signal);
    // Not AbortSignal.any: what it hangs on a signal that lives long stays there.
    const either = new AbortController();
    const onAbort = (): void => either.abort((options.signal?.aborted ? options.signal : this.#closed.signal).reason);
    for (const signal of [options.signal, this.#closed.signal])
      if (signal.aborted) onAbort();
      else signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await this.#attempts(method, request, options, either.signal);
    } finally {
      options.signal.removeEventListener("abort", onAbort);
      this.#closed.signal.removeEventListener("abort", onAbort);
    }
  }

  async #attempts<M extends Exclude<Method, "watch">>(
    method: M,
    request: Methods[M]["request"],
    options: CallOptions,
    signal: AbortSignal,
  ): Promise<Methods[M]["response"]> {
    const started = this.#clock.monotonic();
    const patienceMs = options.patienceMs ?? this.#timing.patienceMs;
    let onlyRefused = true;
    let mayRenew = true;
    for (let attempt = 1; ; attempt++) {
      signal.throwIfAborted();
      const member = this.#member();
      try {
        return await this.#once(member, method, request, await this.#metadata(member, signal), signal);
      } catch (error) {
        if (!(error instanceof EtcdError)) throw error;
        options.failed?.(error);
        if (error.status === UNAUTHENTICATED || error.details.includes("revision in header is old")) {
          this.#token = undefined;
          if (!mayRenew) throw error;
          mayRenew = false;
          continue;
        }
        if (!error.temporary) throw error;
        this.distrust(member.url);
        onlyRefused &&= error.refused;
        const spent = this.#clock.monotonic() - started;
        if (spent >= (onlyRefused ? Math.min(patienceMs, this.#timing.refusedMs) : patienceMs)) throw error;
        // A round of all members first, then a breath.
        if (attempt % this.#members.length === 0) await this.#clock.sleep(Math.min(50 * attempt, 500), signal);
      }
    }
  }

  async stream(): Promise<Stream> {
    this.#closed.signal.throwIfAborted();
    const member = this.#member();
    const metadata = await this.#metadata(member, this.#closed.signal);
    const wire = this.#wires.watch;
    const raw = member.channel.makeBidiStreamRequest(wire.path, wire.serialize, wire.deserialize, metadata);
    return watchStream(raw, member.url, this.#clock, this.#timing);
  }

  close(): void {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort(new TrilithError("stopped", "the etcd client is closed"));
    for (const { channel } of this.#members) channel.close();
  }
}

const MOST_WAITING = 64;

function watchStream(
  raw: ClientDuplexStream<Methods["watch"]["request"], Methods["watch"]["response"]>,
  url: string,
  clock: Clock,
  timing: ClientTiming,
): Stream {
  const waiting: Methods["watch"]["response"][] = [];
  let end: { readonly error: EtcdError | undefined } | undefined;
  let wake: (() => void) | undefined;
  let heard = clock.monotonic();
  let asked = false;
  const finish = (error: EtcdError | undefined): void => {
    end ??= { error };
    timer.cancel();
    wake?.();
  };
  const listen = (): void => {
    const silence = waiting.length > 0 ? 0 : clock.monotonic() - heard;
    if (silence >= timing.silentMs) {
      // A cut cable or a stopped process says nothing by itself.
      finish(
        sortError({ code: UNAVAILABLE, details: `no sign of life for ${timing.silentMs} ms` }, `etcd watch at ${url}`),
      );
      raw.cancel();
      return;
    }
    if (silence >= timing.askMs && !asked) {
      asked = true;
      raw.write({ progressRequest: {} });
    }
    timer = clock.after((asked ? timing.silentMs : timing.askMs) - silence, listen);
  };
  let timer = clock.after(timing.askMs, listen);
  raw.on("data", (message: Methods["watch"]["response"]) => {
    heard = clock.monotonic();
    asked = false;
    waiting.push(message);
    // A reader that is slow holds up the stream, not the memory.
    if (waiting.length >= MOST_WAITING) raw.pause();
    wake?.();
  });
  raw.on("error", (error: ServiceError) => finish(sortError(error, `etcd watch at ${url}`)));
  raw.on("end", () => finish(sortError({ code: UNAVAILABLE, details: "the stream ended" }, `etcd watch at ${url}`)));
  return {
    url,
    send: (message) => void raw.write(message),
    async next() {
      for (;;) {
        const message = waiting.shift();
        if (message !== undefined) {
          if (waiting.length === 0) {
            // Time spent by a slow reader is not the server's silence.
            heard = clock.monotonic();
            if (raw.isPaused()) raw.resume();
          }
          return message;
        }
        if (end !== undefined) {
          if (end.error !== undefined) throw end.error;
          return undefined;
        }
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        wake = undefined;
      }
    },
    cancel() {
      waiting.length = 0;
      finish(undefined);
      raw.cancel();
    },
  };
}
