// The read-only listener: shows this host's own instances to those who may ask, as a stream of lines with heartbeats, and says goodbye.

import { drained } from "../../base/drained.ts";
import { messageOf, TrilithError } from "../../base/error.ts";
import type { Handler, IncomingMessage, ServerResponse } from "../../base/http.ts";
import { hostPort } from "../../base/net.ts";
import type { Ground } from "../../contracts/ground.ts";
import { scope } from "../../model/record.ts";
import { isPrivileged } from "./config.ts";
import { type Hello, ownLine, PEERS_PATH, PEERS_VERSION, type ToldRows } from "./lines.ts";
import { createSeal, isProof, type Seal } from "./secret.ts";

export interface OwnOptions extends Pick<Ground, "clock" | "random" | "log" | "directory" | "self"> {
  /** The key as it is now. */
  readonly key: () => string | undefined;
  readonly life: string;
  /** Where others are heard at this moment. */
  readonly heard: () => readonly string[];
  /** Somebody who may ask shows his own at that place. */
  readonly caller: (place: string) => void;
}

/** What answers other hosts, and ends with a goodbye. */
export interface Own {
  readonly handle: Handler;
  /** Readers that showed another key than the present one are told nothing more. */
  cutOthers(): void;
  /** Tells every reader that this agent stops, and waits for a moment until they have it. */
  goodbye(leave: boolean): Promise<void>;
}

/** Everybody hears something at least so often. */
const BEAT_MS = 500;
/** Changes within so long are one line. */
const GATHER_MS = 10;
const NONCE_MS = 10_000;
const NONCES = 1_000;
const GOODBYE_MS = 500;
const CALLER = /^Trilith-Peer ([A-Za-z0-9_-]{20,100})$/;

interface Reader {
  /** With which he was let in. */
  readonly key: string | undefined;
  cut(): void;
  goodbye(leave: boolean): void;
  readonly gone: Promise<void>;
}

/** See `Own`. */
export function createOwn(options: OwnOptions): Own {
  const { clock, directory, random, self } = options;
  const log = options.log.part("peers");
  /** Given out and not used yet, with when they were. */
  const nonces = new Map<string, number>();
  const readers = new Set<Reader>();
  let stopping = false;

  const nonce = (): string => {
    const now = clock.monotonic();
    for (const [old, atMs] of nonces) {
      if (now - atMs <= NONCE_MS && nonces.size < NONCES) break;
      nonces.delete(old);
    }
    const made = Buffer.from(random.bytes(18)).toString("base64url");
    nonces.set(made, now);
    return made;
  };

  /** Each nonce is good for one request. */
  const authorize = (request: IncomingMessage, query: URLSearchParams, key: string | undefined): Seal => {
    if (request.headers.origin !== undefined)
      throw new TrilithError("not-allowed", `a web page of ${request.headers.origin} is no peer`);
    const from = request.socket.remoteAddress ?? "";
    if (key === undefined) {
      if (!isPrivileged(from))
        throw new TrilithError("not-allowed", `${from} is no address of the tailnet, and this agent has no peers_key`);
      return createSeal(undefined, ["", ""]);
    }
    const theirs = query.get("nonce") ?? "";
    const mine = query.get("mine") ?? "";
    const givenAt = nonces.get(theirs);
    nonces.delete(theirs);
    const proof = CALLER.exec(request.headers.authorization ?? "")?.[1];
    if (proof === undefined || mine.length < 16)
      throw new TrilithError("not-allowed", "this agent has a key for peers (peers_key), and you show none");
    if (
      givenAt === undefined ||
      clock.monotonic() - givenAt > NONCE_MS ||
      !isProof(key, theirs, request.url ?? "", proof)
    )
      throw new TrilithError("not-allowed", "your key for peers (peers_key) is not this agent's");
    return createSeal(key, [theirs, mine]);
  };

  const hello = (): Hello => ({
    kind: "hello",
    version: PEERS_VERSION,
    datacenter: self.datacenter,
    node: self.node,
    nodeId: self.nodeId,
    life: options.life,
  });

  /** Tells everything and then what changes, for as long as the reader stays. */
  async function follow(response: ServerResponse, seal: Seal, key: string | undefined): Promise<void> {
    const gone = new AbortController();
    let closed: () => void = () => {};
    const reader: Reader = {
      key,
      cut: () => response.destroy(),
      gone: new Promise((resolve) => {
        closed = resolve;
      }),
      goodbye(leave) {
        gone.abort();
        response.end(`${seal.close(JSON.stringify({ kind: "goodbye", leave }))}\n`);
      },
    };
    response.once("close", () => {
      gone.abort();
      closed();
      readers.delete(reader);
    });
    readers.add(reader);
    const send = async (text: string): Promise<void> => {
      if (!gone.signal.aborted && !response.write(`${seal.close(text)}\n`)) await drained(response, gone.signal);
    };
    response.writeHead(200, { "content-type": "application/x-ndjson; charset=utf-8", "cache-control": "no-store" });
    await send(JSON.stringify(hello()));
    const told: ToldRows = new Map();
    const mine = scope.node(self.node);
    let others = "[]";
    while (!gone.signal.aborted) {
      const heard = JSON.stringify(options.heard());
      if (heard !== others) await send(`{"kind":"peers","at":${heard}}`);
      others = heard;
      const view = directory.view();
      const line = ownLine(view, self.node, told);
      if (line !== undefined) await send(line);
      if (!(await moved(view.at(mine), gone.signal))) await send('{"kind":"beat"}');
      else await clock.sleep(GATHER_MS, gone.signal).catch(() => {});
    }
  }

  /** True when this node moved, false when it is time for a beat. */
  async function moved(after: number, signal: AbortSignal): Promise<boolean> {
    const round = new AbortController();
    const pass = (): void => round.abort(signal.reason);
    if (signal.aborted) return false;
    signal.addEventListener("abort", pass, { once: true });
    const timer = clock.after(BEAT_MS, () => round.abort(new TrilithError("timeout", "nothing moved")));
    try {
      await directory.changed(scope.node(self.node), after, round.signal);
      return true;
    } catch (error) {
      if (!round.signal.aborted) throw error;
      return false;
    } finally {
      timer.cancel();
      signal.removeEventListener("abort", pass);
      round.abort();
    }
  }

  return {
    async handle(request, response) {
      request.resume();
      const url = new URL(request.url ?? "/", "http://peer");
      const key = options.key();
      try {
        if (stopping) throw new TrilithError("unavailable", "this agent is stopping");
        if (request.method !== "GET")
          throw new TrilithError("not-allowed", `${request.method}: this listener only shows, with GET`);
        if (url.pathname === `${PEERS_PATH}nonce`)
          return reply(response, 200, key === undefined ? { key: false } : { key: true, nonce: nonce() });
        if (url.pathname !== `${PEERS_PATH}own`) throw new TrilithError("not-found", `nothing is at ${url.pathname}`);
        const seal = authorize(request, url.searchParams, key);
        const port = Number(url.searchParams.get("port"));
        const from = (request.socket.remoteAddress ?? "").replace(/^::ffff:(?=\d+\.)/i, "");
        if (Number.isInteger(port) && port > 0 && port <= 65_535 && from !== "") options.caller(hostPort(from, port));
        await follow(response, seal, key);
      } catch (error) {
        if (response.headersSent) {
          if (!stopping) log.warn("telling a peer of this host's own", { error: messageOf(error) });
          response.destroy();
          return;
        }
        const { code, message } =
          error instanceof TrilithError ? error : new TrilithError("internal", messageOf(error));
        const status = { "not-found": 404, "not-allowed": 403, unavailable: 503 }[code as string] ?? 500;
        reply(response, status, { error: { code, message } });
      }
    },
    cutOthers() {
      for (const reader of readers) if (reader.key !== options.key()) reader.cut();
    },
    async goodbye(leave) {
      stopping = true;
      const all = [...readers];
      for (const reader of all) reader.goodbye(leave);
      const late = new AbortController();
      await Promise.race([
        Promise.all(all.map(({ gone }) => gone)),
        clock.sleep(GOODBYE_MS, late.signal).catch(() => {}),
      ]);
      late.abort();
    },
  };
}

function reply(response: ServerResponse, status: number, value: unknown): void {
  const body = Buffer.from(`${JSON.stringify(value)}\n`);
  response
    .writeHead(status, { "content-type": "application/json; charset=utf-8", "content-length": body.length })
    .end(body);
}
