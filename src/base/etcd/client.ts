// Calls to etcd: member after member until one answers, each attempt bounded, with the token where etcd asks for a name and a password.
import { setMaxListeners } from "node:events";
import type { Metadata, ServiceError } from "@grpc/grpc-js";
import type { Clock } from "../clock.ts";
import type { Disk } from "../disk.ts";
import { TrilithError } from "../error.ts";
import { type ClientTiming, type EtcdAccess, type Member, membersOf } from "./access.ts";
import { EtcdError, sortError, UNAUTHENTICATED, UNAVAILABLE } from "./error.ts";
import { loadWires, type Method, type Methods, type Wires } from "./proto.ts";
import { type Stream, watchStream } from "./watch-stream.ts";

/** How one request is asked. */
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

/** Builds the client; connects to nobody yet. @throws InputError for wrong settings, TrilithError for unreadable files */
export async function createClient(
  settings: EtcdAccess,
  ground: { readonly clock: Clock; readonly disk: Pick<Disk, "readBytes"> },
  timing: ClientTiming,
): Promise<EtcdClient> {
  const [grpc, wires] = await Promise.all([import("@grpc/grpc-js"), loadWires()]);
  const members = await membersOf(grpc, settings, ground.disk);
  return new Members(grpc, wires, members, settings, ground.clock, timing);
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
