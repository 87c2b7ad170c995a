// One request as the routes see it, what they answer, and one row of the route table.
import type { Readable } from "node:stream";
import type { IncomingMessage } from "../../base/http.ts";
import type { Ground } from "../../contracts/ground.ts";
import type { AskedBefore } from "./cache.ts";
import type { ConsulConfig } from "./config.ts";
import type { Query } from "./query.ts";

/** What this protocol is handed. */
export const NEEDS = [
  "clock",
  "random",
  "log",
  "net",
  "http",
  "processes",
  "metrics",
  "directory",
  "kv",
  "sessions",
  "events",
  "prepared",
  "sessions",
  "agent",
  "self",
  "probes",
  "control",
] as const;
export type ConsulGround = Pick<Ground, (typeof NEEDS)[number]>;

/** One request. */
export interface Call {
  readonly ground: ConsulGround;
  readonly config: ConsulConfig;
  readonly request: IncomingMessage;
  readonly method: string;
  /** The decoded path. */
  readonly path: string;
  /** What of the decoded path follows the route's pattern. */
  readonly suffix: string;
  readonly query: Query;
  /** Aborted when the client goes away. */
  readonly signal: AbortSignal;
  /** Which cached questions were asked before. */
  readonly askedBefore: AskedBefore;
  /** The whole body. @throws Refusal 413 over `maxBytes` (default: the configured limit for JSON), 408 when it does not come */
  body(maxBytes?: number, tooLarge?: (bytes: number) => string): Promise<Uint8Array>;
}

/** An answer; absent parts mean status 200, no headers of its own, no body. At most one of `json`, `text`, `bytes`, `stream`. */
export interface Reply {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly json?: unknown;
  /** The JSON holds bigints. */
  readonly exact?: boolean;
  readonly text?: string;
  readonly bytes?: Uint8Array;
  /** Sent piece by piece as it comes; destroyed when the client goes away. */
  readonly stream?: Readable;
  /** Content-Type of `text`, `bytes` and `stream`; "text/plain; charset=utf-8" when absent. */
  readonly type?: string;
}

export type Endpoint = (call: Call) => Reply | undefined | Promise<Reply | undefined>;

/** A row of the table: an exact path, or with a slash at its end everything below it. */
export interface Row {
  readonly pattern: string;
  readonly methods: readonly string[];
  /** The endpoint itself answers OPTIONS and refuses other methods. */
  readonly ownMethods?: true;
  readonly endpoint: Endpoint;
}
