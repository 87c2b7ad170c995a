// What client hosts are offered: the directory as a stream of changes, commits, the index of now, and a place for their signs of life.

import { drained } from "../../base/drained.ts";
import { codeOf, InputError, messageOf, TrilithError } from "../../base/error.ts";
import type { Handler, IncomingMessage, ServerResponse } from "../../base/http.ts";
import type { Written } from "../../contracts/directory.ts";
import type { Ground } from "../../contracts/ground.ts";
import { type Hello, JOIN_PREFIX, JOIN_VERSION, readCommit } from "../../contracts/join.ts";
import { authorizePeer } from "./authorize.ts";
import { errorReply, MethodError } from "./errors.ts";
import { JoinHub } from "./join-hub.ts";

/** What this part is handed. */
export const JOIN_NEEDS = ["clock", "random", "log", "directory", "self", "vouch", "via"] as const;
export type JoinGround = Pick<Ground, (typeof JOIN_NEEDS)[number]>;

const MAX_BODY_BYTES = 32 << 20;
const BODY_MS = 30_000;
/** Outcomes of commits that are remembered, so that one asked for twice is made once. */
const OUTCOMES = 2000;
const BEAT = { leastMs: 200, mostMs: 60_000 } as const;

interface Vouched {
  readonly life: string;
  readonly stop: AbortController;
  deadline: { cancel(): void };
}

/** The handler of everything below JOIN_PREFIX. */
export function createJoinHandler(token: () => string | undefined, ground: JoinGround): Handler {
  const { clock, directory, self } = ground;
  const log = ground.log.part("join");
  const hub = new JoinHub({ ...ground, log });
  const outcomes = new Map<string, Promise<Written>>();
  const vouched = new Map<string, Vouched>();

  /** Pieces of the directory, for as long as the reader stays. */
  async function follow(request: IncomingMessage, response: ServerResponse, query: URLSearchParams): Promise<void> {
    const gone = new AbortController();
    response.once("close", () => gone.abort());
    const beatMs = number(query, "beatMs", BEAT.leastMs, BEAT.mostMs, 5000);
    let after = number(query, "after", 0, Number.MAX_SAFE_INTEGER, 0);
    let line = query.get("line") ?? "";
    request.resume();
    response.writeHead(200, { "content-type": "application/x-ndjson; charset=utf-8", "cache-control": "no-store" });
    const hello = (): string => {
      const via = ground.via?.() ?? [];
      const line: Hello = {
        kind: "hello",
        version: JOIN_VERSION,
        line: hub.line,
        datacenter: self.datacenter,
        node: self.node,
        ...(via.length === 0 ? {} : { via }),
      };
      return `${JSON.stringify(line)}\n`;
    };
    const send = async (text: string): Promise<void> => {
      if (!response.write(text)) await drained(response, gone.signal);
    };
    await send(hello());
    // Nothing is told before this agent itself knows anything; whom it hears of that from may have become known meanwhile.
    while (!gone.signal.aborted && !(await within(beatMs, gone.signal, (signal) => directory.ready(signal))))
      await send(hello());
    if (gone.signal.aborted) return;
    const leave = hub.enter();
    let first = true;
    try {
      while (!gone.signal.aborted) {
        // The first answer comes also where nothing has changed: it says that the reader is in step.
        if (first || hub.beyond(after, line)) {
          first = false;
          const pieces = hub.since(after, line);
          line = hub.line;
          for (let piece = pieces.next(); ; piece = pieces.next()) {
            if (piece.done) {
              after = piece.value;
              break;
            }
            await send(piece.value);
            if (gone.signal.aborted) return;
          }
          continue;
        }
        if (!(await within(beatMs, gone.signal, (signal) => hub.next(signal).then(() => signal.throwIfAborted()))))
          await send(still());
      }
    } finally {
      leave();
      response.end();
    }
  }

  /** Nothing has happened; and whether that is known for sure. */
  function still(): string {
    const view = directory.view();
    const ageMs = view.fresh ? undefined : Math.max(0, Math.round(clock.now() - view.asOfMs));
    return `${JSON.stringify({ kind: "still", ...(ageMs === undefined ? {} : { ageMs }) })}\n`;
  }

  /** True when the work was done within the time. */
  async function within(
    ms: number,
    signal: AbortSignal,
    work: (signal: AbortSignal) => Promise<unknown>,
  ): Promise<boolean> {
    const late = new AbortController();
    const pass = (): void => late.abort(signal.reason);
    if (signal.aborted) return true;
    signal.addEventListener("abort", pass, { once: true });
    const timer = clock.after(ms, () => late.abort(new TrilithError("timeout", "late")));
    try {
      await work(late.signal);
      return true;
    } catch (error) {
      if (signal.aborted) return true;
      if (late.signal.aborted) return false;
      throw error;
    } finally {
      timer.cancel();
      signal.removeEventListener("abort", pass);
    }
  }

  async function commit(text: string): Promise<unknown> {
    const { id, changes, expect } = readCommit(text);
    let outcome = outcomes.get(id);
    if (outcome === undefined) {
      outcome = directory.write(changes, expect);
      outcomes.set(id, outcome);
      // What was refused may be tried again.
      outcome.catch(() => outcomes.delete(id));
      for (const oldest of outcomes.keys()) {
        if (outcomes.size <= OUTCOMES) break;
        outcomes.delete(oldest);
      }
    }
    const written = await outcome;
    if (written.result === "unknown") {
      outcomes.delete(id);
      throw new TrilithError("timeout", `the outcome is unknown: ${messageOf(written.cause)}`, written.cause);
    }
    if (written.result === "written") hub.reach(written.index);
    return written;
  }

  async function index(): Promise<unknown> {
    const reached = await directory.barrier();
    hub.reach(reached);
    return { index: reached };
  }

  /** A sign of life: it counts for half of the time the client host gave, then what was vouched for runs out in the other half. */
  function alive(query: URLSearchParams): unknown {
    const node = query.get("node") ?? "";
    const life = query.get("life") ?? "";
    if (node === "" || node.includes("\u0000") || life === "")
      throw new InputError("alive", "expected node and life as parameters");
    const halfMs = number(query, "ttlMs", 1000, 3_600_000, 15_000) / 2;
    const key = node.toLowerCase();
    let known = vouched.get(key);
    if (known !== undefined && known.life !== life) {
      known.deadline.cancel();
      known.stop.abort();
      known = undefined;
    }
    const lost = (): void => {
      const mine = vouched.get(key);
      if (mine?.life !== life) return;
      vouched.delete(key);
      mine.stop.abort();
      log.warn(`client host "${node}" was not heard of for ${Math.round(halfMs)} ms`);
    };
    if (known !== undefined) {
      known.deadline.cancel();
      known.deadline = clock.after(halfMs, lost);
      return {};
    }
    const stop = new AbortController();
    vouched.set(key, { life, stop, deadline: clock.after(halfMs, lost) });
    /** It ends by itself when this agent stops. */
    const over = (): void => {
      const mine = vouched.get(key);
      if (mine?.stop !== stop) return;
      mine.deadline.cancel();
      vouched.delete(key);
    };
    ground.vouch(node, life, halfMs, stop.signal).then(over, (error: unknown) => {
      over();
      if (codeOf(error) !== "stopped")
        log.warn(`the sign of life of client host "${node}" could not be kept`, { error: messageOf(error) });
    });
    return {};
  }

  return async (request, response) => {
    const url = new URL(request.url ?? "/", "http://agent");
    const verb = url.pathname.slice(JOIN_PREFIX.length);
    const method = verb === "follow" || verb === "index" ? "GET" : "POST";
    try {
      if (!["follow", "index", "commit", "alive"].includes(verb))
        throw new TrilithError("not-found", `nothing is at ${url.pathname}`);
      if (request.method !== method) throw new MethodError(request.method ?? "?", url.pathname, method);
      authorizePeer(request, token());
      if (verb === "follow") return await follow(request, response, url.searchParams);
      if (verb === "commit") return json(response, 200, await commit(await bodyOf(request)));
      request.resume();
      json(response, 200, verb === "index" ? await index() : alive(url.searchParams));
    } catch (error) {
      if (response.headersSent) {
        response.destroy();
        return;
      }
      request.resume();
      const { status, body } = errorReply(error);
      if (error instanceof MethodError) response.setHeader("allow", error.allow);
      json(response, status, body);
    }
  };

  function bodyOf(request: IncomingMessage): Promise<string> {
    return new Promise((resolve, reject) => {
      const chunks: Buffer[] = [];
      let size = 0;
      const timer = clock.after(BODY_MS, () => request.destroy());
      const end = (): void => timer.cancel();
      request.on("data", (chunk: Buffer) => {
        size += chunk.length;
        if (size > MAX_BODY_BYTES) {
          end();
          reject(new TrilithError("too-large", `a commit of more than ${MAX_BODY_BYTES} bytes`));
          request.destroy();
        } else chunks.push(chunk);
      });
      request.once("end", () => {
        end();
        resolve(Buffer.concat(chunks).toString("utf8"));
      });
      request.once("close", () => {
        end();
        reject(new TrilithError("stopped", "the client host went away"));
      });
    });
  }
}

function json(response: ServerResponse, status: number, value: unknown): void {
  const body = Buffer.from(`${JSON.stringify(value)}\n`);
  response
    .writeHead(status, { "content-type": "application/json; charset=utf-8", "content-length": body.length })
    .end(body);
}

function number(query: URLSearchParams, name: string, least: number, most: number, fallback: number): number {
  const text = query.get(name);
  if (text === null) return fallback;
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < least || value > most)
    throw new InputError(name, `"${text}": expected a whole number from ${least} to ${most}`);
  return value;
}
