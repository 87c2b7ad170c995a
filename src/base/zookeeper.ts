// ZooKeeper: sessions that are noticed when they end or fall silent, and the few calls that are needed; by node-zookeeper-client, loaded when meant.
import type { Clock, Timer } from "./clock.ts";
import { messageOf, TrilithError } from "./error.ts";
import { hostPort } from "./net.ts";
import {
  type Acls,
  CLOSING,
  FAULTS,
  type Fault,
  loadLibrary,
  MODE,
  NO_NODE,
  type RawClient,
  type RawStat,
} from "./zookeeper-library.ts";

/** A znode's own facts. */
export interface ZnodeStat {
  /** The session that an ephemeral znode belongs to, 16 hexadecimal digits; "" = it stays. */
  readonly owner: string;
  /** How often its data was changed. */
  readonly version: number;
}

/** A znode: its data and facts. */
export interface Znode {
  readonly data: Buffer;
  readonly stat: ZnodeStat;
}

/** What became of the connection: `away` = there is none, told for each reason; `session` = a new one began (all ephemeral znodes and watches of the last one are gone), `back` = the same goes on. */
export type ZooKeeperNews =
  | { readonly what: "session"; readonly id: string; readonly timeoutMs: number; readonly server: string }
  | { readonly what: "back"; readonly id: string; readonly timeoutMs: number; readonly server: string }
  | { readonly what: "away"; readonly text: string };

/**
 * A client. Paths begin with "/". Calls wait for a connection, as long as the session time-out, then throw `unavailable` or `timeout`; what
 * was on its way then may have been done. Further errors: `conflict` (exists already, or is not empty), `not-found` (the znode, or the one
 * above it), `not-allowed` (its access list).
 * `onChange` is called once, when what was read is no longer true or can no longer be vouched for (a new session).
 */
export interface ZooKeeper {
  /** The present session, 16 hexadecimal digits; "" where there is none. */
  session(): string;
  get(path: string, onChange?: () => void): Promise<Znode | undefined>;
  /** Names below a znode, in no promised order; undefined where it is not there (`onChange` then rings when it comes). */
  children(path: string, onChange?: () => void): Promise<readonly string[] | undefined>;
  create(path: string, data: Uint8Array | string, kind: "persistent" | "ephemeral"): Promise<void>;
  /** Makes an ephemeral znode whose name is `prefix` and the next number of its parent in ten digits. @returns its path */
  createNumbered(prefix: string, data: Uint8Array | string): Promise<string>;
  /** Makes a znode and those above it that are missing, with empty data. */
  makePath(path: string): Promise<void>;
  set(path: string, data: Uint8Array | string): Promise<void>;
  /** Puts an ephemeral znode of this session in the place of one of another's, in one step. */
  takeOver(path: string, data: Uint8Array | string): Promise<void>;
  /** @returns false where it was not there */
  remove(path: string): Promise<boolean>;
  /** Ends the session: its ephemeral znodes go at once. */
  close(): Promise<void>;
  /** Cuts the connection and leaves the session to run out: its ephemeral znodes stay until then. */
  abandon(): void;
}

/** How ZooKeeper is reached, and who hears of the connection. */
export interface ZooKeeperOptions {
  /** "a:2181,b:2181", with "/below" at the end where all paths are below that znode; the port is 2181 unless told. */
  readonly servers: string;
  /**
   * Who this client is: what it makes is then everybody's to read and only its own to change (else everybody's).
   * For the scheme "digest" the credentials are "user:password".
   */
  readonly auth?: { readonly scheme: string; readonly credentials: string };
  /** What is asked for; the server has limits of its own. */
  readonly sessionTimeoutMs: number;
  readonly clock: Clock;
  onNews?(news: ZooKeeperNews): void;
}

/** Between two rounds over all servers, at most. */
const SPIN_MS = 500;
/** Before a session is begun anew; longer the oftener the credentials were refused. */
const RESTART_MS = 200;
const LONGEST_RESTART_MS = 60_000;

/** Connects in the background; resolves at once. @throws TrilithError `invalid` for servers that cannot be read */
export async function openZooKeeper(options: ZooKeeperOptions): Promise<ZooKeeper> {
  const { ACL, createClient } = await loadLibrary();
  const acls = options.auth === undefined ? undefined : [...ACL.CREATOR_ALL_ACL, ...ACL.READ_ACL_UNSAFE];
  const client = new Client(options, acls, (settings) => createClient(options.servers, settings));
  client.begin();
  return client;
}

class Client implements ZooKeeper {
  readonly #options: ZooKeeperOptions;
  readonly #acls: Acls;
  readonly #make: (settings: object) => RawClient;
  #raw: RawClient | undefined;
  #connected = false;
  #session = "";
  #over = false;
  #watchdog: Timer | undefined;
  #restart: Timer | undefined;
  /** Since the last connection: how that was lost, why each server could not be had, and what was told of it. */
  #lost = "";
  /** How often in a row the credentials were refused. */
  #refusals = 0;
  #awaySince = Number.POSITIVE_INFINITY;
  readonly #failures = new Map<string, string>();
  #away = "";
  readonly #waiting = new Set<() => void>();
  /** Who has to be told when this session is over, because the server will not. */
  readonly #watchers = new Set<() => void>();

  /** Calls that wait for an answer, which a client that was closed will not bring. */
  readonly #asking = new Set<() => void>();

  constructor(options: ZooKeeperOptions, acls: Acls, make: (settings: object) => RawClient) {
    this.#options = options;
    this.#acls = acls;
    this.#make = make;
  }

  begin(): void {
    if (this.#over) return;
    const raw = this.#make({ sessionTimeout: this.#options.sessionTimeoutMs, spinDelay: SPIN_MS });
    this.#raw = raw;
    this.#session = "";
    const { connectionManager } = raw;
    const next = connectionManager.findNextServer.bind(connectionManager);
    // A client that was left behind must not connect once more.
    connectionManager.findNextServer = (callback) => {
      next((server) => {
        if (this.#raw !== raw || this.#over) return;
        callback(server);
        this.#listen(raw, server as { readonly host: string; readonly port: number });
      });
    };
    raw.on("connected", () => this.#onConnected(raw));
    raw.on("disconnected", () => {
      if (this.#raw === raw) this.#onAway("the connection was lost");
    });
    const lost = (text: string): void => {
      if (this.#raw !== raw || this.#over) return;
      this.#onAway(text);
      this.#beginAnew(raw);
    };
    raw.on("expired", () => lost("the session is over"));
    raw.on("authenticationFailed", () => {
      this.#refusals++;
      lost("the server refused the credentials");
    });
    const { auth } = this.#options;
    if (auth !== undefined) raw.addAuthInfo(auth.scheme, Buffer.from(auth.credentials));
    raw.connect();
    this.#watch(raw);
  }

  #onConnected(raw: RawClient): void {
    if (this.#raw !== raw) return;
    const id = raw.getSessionId().toString("hex");
    const fresh = id !== this.#session;
    this.#session = id;
    this.#connected = true;
    this.#lost = "";
    this.#away = "";
    this.#failures.clear();
    const { socket } = raw.connectionManager;
    const server = hostPort(socket?.remoteAddress ?? "", socket?.remotePort ?? 0);
    this.#options.onNews?.({ what: fresh ? "session" : "back", id, timeoutMs: raw.getSessionTimeout(), server });
    for (const wake of [...this.#waiting]) wake();
    if (!fresh) return;
    for (const ring of [...this.#watchers]) ring();
  }

  #beginAnew(raw: RawClient): void {
    this.#drop(raw);
    // Credentials seldom become right by themselves.
    const waitMs = Math.min(LONGEST_RESTART_MS, RESTART_MS * 4 ** this.#refusals);
    this.#restart = this.#options.clock.after(waitMs, () => this.begin(), true);
  }

  /** The library keeps to itself why a server cannot be had. */
  #listen(raw: RawClient, { host, port }: { readonly host: string; readonly port: number }): void {
    const { clock } = this.#options;
    const { socket } = raw.connectionManager;
    const failed = (why: string): void => {
      if (this.#raw !== raw || this.#over || this.#connected) return;
      this.#failures.set(hostPort(host, port), why);
      this.#tellAway();
    };
    socket?.once("error", (error) => failed(messageOf(error)));
    socket?.once("close", (hadError) => {
      // A server that was emptied or restored turns away whoever has seen more than it knows, for ever; by now the session is over anyway.
      if (
        !hadError &&
        this.#raw === raw &&
        !this.#connected &&
        clock.monotonic() - this.#awaySince > raw.getSessionTimeout()
      ) {
        this.#awaySince = clock.monotonic();
        this.#beginAnew(raw);
      }
      if (!hadError)
        failed(`${hostPort(host, port)} closes the connection; is that ZooKeeper, and does it take more clients?`);
    });
  }

  #onAway(text: string): void {
    if (!this.#connected) return;
    this.#connected = false;
    this.#awaySince = this.#options.clock.monotonic();
    this.#lost = text;
    this.#tellAway();
  }

  /** Once for each reason. */
  #tellAway(): void {
    const failures = [...this.#failures].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, why]) => why);
    const text = [...(this.#lost === "" ? [] : [this.#lost]), ...new Set(failures)].join("; ");
    if (text === this.#away) return;
    this.#away = text;
    this.#options.onNews?.({ what: "away", text });
  }

  /** The library pings, but does not look whether it is answered: a server that is silent for two thirds of the time-out is left for another. */
  #watch(raw: RawClient): void {
    const { clock } = this.#options;
    const thirdMs = (): number => Math.max(100, raw.getSessionTimeout() / 3);
    let heardMs = clock.monotonic();
    let asking = false;
    const look = (): void => {
      if (this.#raw !== raw || this.#over) return;
      if (clock.monotonic() - heardMs > 2 * thirdMs()) {
        heardMs = clock.monotonic();
        asking = false;
        raw.connectionManager.socket?.destroy();
      } else if (this.#connected && !asking) {
        asking = true;
        raw.exists("/", undefined, () => {
          asking = false;
          heardMs = clock.monotonic();
        });
      }
      this.#watchdog = clock.after(thirdMs() / 2, look);
    };
    this.#watchdog?.cancel();
    this.#watchdog = clock.after(thirdMs() / 2, look);
  }

  /** Leaves a client behind without a word to the server. */
  #drop(raw: RawClient): void {
    const { connectionManager } = raw;
    connectionManager.state = CLOSING;
    if (connectionManager.connectTimeoutHandler) clearTimeout(connectionManager.connectTimeoutHandler);
    connectionManager.socket?.destroy();
    if (this.#raw === raw) this.#raw = undefined;
    this.#connected = false;
  }

  session(): string {
    return this.#connected ? this.#session : "";
  }

  async #ready(): Promise<RawClient> {
    const { clock, servers, sessionTimeoutMs } = this.#options;
    const endMs = clock.monotonic() + sessionTimeoutMs;
    while (!this.#connected || this.#raw === undefined) {
      if (this.#over) throw new TrilithError("stopped", `ZooKeeper at ${servers}: the client was closed`);
      const leftMs = endMs - clock.monotonic();
      if (leftMs <= 0)
        throw new TrilithError("unavailable", `ZooKeeper at ${servers}: no connection within ${sessionTimeoutMs} ms`);
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          timer.cancel();
          this.#waiting.delete(wake);
          resolve();
        };
        const timer = clock.after(leftMs, wake, true);
        this.#waiting.add(wake);
      });
    }
    return this.#raw;
  }

  /** One call, bounded. `absent`: answered with undefined where there is no such znode. */
  async #call<T>(doing: string, ask: (raw: RawClient, done: (error: Fault, value?: T) => void) => void): Promise<T> {
    const raw = await this.#ready();
    const { clock, servers } = this.#options;
    return await new Promise<T>((resolve, reject) => {
      const limitMs = raw.getSessionTimeout();
      const fail = (code: "timeout" | "stopped", text: string): void => {
        over();
        reject(new TrilithError(code, `ZooKeeper at ${servers}: ${doing}: ${text}`));
      };
      const closed = (): void => fail("stopped", "the client was closed");
      const timer = clock.after(limitMs, () => fail("timeout", `no answer within ${limitMs} ms`), true);
      const over = (): void => {
        timer.cancel();
        this.#asking.delete(closed);
      };
      this.#asking.add(closed);
      const done = (error: Fault, value?: T): void => {
        over();
        if (error) {
          const [code, text] = FAULTS[error.code ?? 0] ?? ["internal", error.message];
          reject(new TrilithError(code, `ZooKeeper at ${servers}: ${doing}: ${text}`, error));
        } else {
          this.#refusals = 0;
          resolve(value as T);
        }
      };
      try {
        ask(raw, done);
      } catch (error) {
        // The library refuses paths that are none by throwing.
        over();
        reject(new TrilithError("invalid", `ZooKeeper: ${doing}: ${messageOf(error)}`, error));
      }
    });
  }

  /** Rings once: by the server's word, or because the session that would bring it is over. */
  #ringOnce(onChange: (() => void) | undefined): (() => void) | undefined {
    if (onChange === undefined) return undefined;
    const ring = (): void => {
      if (this.#watchers.delete(ring)) onChange();
    };
    this.#watchers.add(ring);
    return ring;
  }

  async get(path: string, onChange?: () => void): Promise<Znode | undefined> {
    const ring = this.#ringOnce(onChange);
    try {
      return await this.#call<Znode>(`reading ${path}`, (raw, done) =>
        raw.getData(path, ring, (error, data, stat) =>
          error || stat === undefined
            ? done(error)
            : done(null, { data: data ?? Buffer.alloc(0), stat: readStat(stat) }),
        ),
      );
    } catch (error) {
      if (!isMissing(error)) {
        if (ring !== undefined) this.#watchers.delete(ring);
        throw error;
      }
      return await this.#watchMissing(path, ring);
    }
  }

  async children(path: string, onChange?: () => void): Promise<readonly string[] | undefined> {
    const ring = this.#ringOnce(onChange);
    try {
      return await this.#call<string[]>(`listing ${path}`, (raw, done) =>
        raw.getChildren(path, ring, (error, names) => done(error, names)),
      );
    } catch (error) {
      if (!isMissing(error)) {
        if (ring !== undefined) this.#watchers.delete(ring);
        throw error;
      }
      return await this.#watchMissing(path, ring);
    }
  }

  /** A read sets no watch where there is nothing: only asking whether it exists does. */
  async #watchMissing(path: string, ring: (() => void) | undefined): Promise<undefined> {
    if (ring === undefined) return undefined;
    const stat = await this.#call<RawStat | undefined>(`watching ${path}`, (raw, done) =>
      raw.exists(path, ring, (error, found) => (isCode(error, NO_NODE) ? done(null) : done(error, found))),
    );
    // It came between the two questions.
    if (stat) ring();
    return undefined;
  }

  async create(path: string, data: Uint8Array | string, kind: "persistent" | "ephemeral"): Promise<void> {
    await this.#call<void>(`creating ${path}`, (raw, done) =>
      raw.create(path, Buffer.from(data as string), this.#acls, MODE[kind], (error) => done(error)),
    );
  }

  async createNumbered(prefix: string, data: Uint8Array | string): Promise<string> {
    return await this.#call<string>(`creating ${prefix}…`, (raw, done) =>
      raw.create(prefix, Buffer.from(data as string), this.#acls, MODE.numbered, done),
    );
  }

  async makePath(path: string): Promise<void> {
    if (path === "/" || path === "") return;
    try {
      await this.create(path, "", "persistent");
    } catch (error) {
      if (error instanceof TrilithError && error.code === "conflict") return;
      if (!isMissing(error)) throw error;
      await this.makePath(path.slice(0, path.lastIndexOf("/")));
      await this.makePath(path);
    }
  }

  async set(path: string, data: Uint8Array | string): Promise<void> {
    await this.#call<void>(`writing ${path}`, (raw, done) =>
      raw.setData(path, Buffer.from(data as string), -1, (error) => done(error)),
    );
  }

  async takeOver(path: string, data: Uint8Array | string): Promise<void> {
    await this.#call<void>(`taking over ${path}`, (raw, done) =>
      raw
        .transaction()
        .remove(path)
        .create(path, Buffer.from(data as string), this.#acls, MODE.ephemeral)
        .commit((error) => done(error)),
    );
  }

  async remove(path: string): Promise<boolean> {
    try {
      await this.#call<void>(`removing ${path}`, (raw, done) => raw.remove(path, -1, (error) => done(error)));
      return true;
    } catch (error) {
      if (isMissing(error)) return false;
      throw error;
    }
  }

  async close(): Promise<void> {
    if (this.#over) return;
    const raw = this.#raw;
    if (raw !== undefined && this.#connected)
      await new Promise<void>((resolve) => {
        const timer = this.#options.clock.after(1_000, resolve, true);
        raw.on("disconnected", () => {
          timer.cancel();
          resolve();
        });
        raw.close();
      });
    this.abandon();
  }

  abandon(): void {
    this.#over = true;
    this.#watchdog?.cancel();
    this.#restart?.cancel();
    if (this.#raw !== undefined) this.#drop(this.#raw);
    this.#watchers.clear();
    for (const closed of [...this.#asking]) closed();
    for (const wake of [...this.#waiting]) wake();
  }
}

function readStat(stat: RawStat): ZnodeStat {
  const owner = stat.ephemeralOwner.toString("hex");
  return { owner: /^0*$/.test(owner) ? "" : owner, version: stat.version };
}

function isCode(error: Fault, code: number): boolean {
  return error?.code === code;
}

function isMissing(error: unknown): boolean {
  return error instanceof TrilithError && error.code === "not-found";
}
