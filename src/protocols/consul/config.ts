// What this protocol is told (`protocols.consul` of the settings): checked, with defaults.
import * as v from "valibot";
import { InputError } from "../../base/error.ts";
import { networkFault } from "../../base/networks.ts";
import type { WatchConfig } from "./watch-config.ts";
import { planOf } from "./watch-plan.ts";

/** The protocol's configuration. Sizes in bytes. */
export interface ConsulConfig {
  /** The port under which this agent calls itself a server (the leader's address, members); nothing listens there. */
  readonly serverPort: number;
  /** The port for gossip that members are told; nothing listens there. */
  readonly serfPort: number;
  readonly kvMaxValueBytes: number;
  /** The largest transaction; never less than the largest value. */
  readonly txnMaxBytes: number;
  /** Sessions with a shorter time to live are refused. */
  readonly sessionTtlMinMs: number;
  /** The largest JSON body. */
  readonly maxBodyBytes: number;
  /** TTL outputs are cut to this. */
  readonly checkOutputMaxBytes: number;
  /** How long a blocking query waits at most, and where it does not say how long. Milliseconds. */
  readonly maxWaitMs: number;
  readonly defaultWaitMs: number;
  /** False: `?cached` means nothing. */
  readonly cache: boolean;
  /** Sent with every answer. */
  readonly responseHeaders: Readonly<Record<string, string>>;
  /** Paths below these prefixes answer 403. */
  readonly blockEndpoints: readonly string[];
  /** Requests that change something are answered from these networks (CIDR) only; empty = from everywhere. */
  readonly allowWriteFrom: readonly string[];
  /** True: `/` leads to `/ui/`. */
  readonly ui: boolean;
  /** JSON is indented also where nobody asked for it, as `consul agent -dev` does; the agent's own dev flag when absent. */
  readonly indent?: boolean;
  /** True: /v1/agent/metrics?format=prometheus answers. */
  readonly prometheus: boolean;
  /** True: commands that `consul exec` asks for may run here, where scripts from the API are allowed as well. */
  readonly remoteExec: boolean;
  /** False: this agent measures no network coordinates and answers nothing about any. */
  readonly coordinates: boolean;
  /** Scripts and URLs that are told of changes. */
  readonly watches: readonly WatchConfig[];
  /** Files and folders in which a reload looks for watches anew; none = the watches stay as they are. */
  readonly watchPaths: readonly string[];
}

/** Of bytes, or milliseconds. */
const bytes = v.pipe(v.number(), v.integer(), v.minValue(1));
const port = v.pipe(v.number(), v.integer(), v.minValue(-1), v.maxValue(65_535));
const schema = v.strictObject({
  serverPort: v.optional(port, 8300),
  serfPort: v.optional(port, 8301),
  kvMaxValueBytes: v.optional(bytes, 512 << 10),
  txnMaxBytes: v.optional(bytes, 512 << 10),
  sessionTtlMinMs: v.optional(v.pipe(v.number(), v.minValue(1)), 10_000),
  maxBodyBytes: v.optional(bytes, 8 << 20),
  checkOutputMaxBytes: v.optional(bytes, 4096),
  maxWaitMs: v.optional(bytes, 600_000),
  defaultWaitMs: v.optional(bytes, 300_000),
  cache: v.optional(v.boolean(), true),
  responseHeaders: v.optional(v.record(v.string(), v.string()), {}),
  blockEndpoints: v.optional(v.array(v.string()), []),
  allowWriteFrom: v.optional(
    v.array(
      v.pipe(
        v.string(),
        v.check((text) => networkFault(text) === undefined, "expected networks such as 10.0.0.0/8"),
      ),
    ),
    [],
  ),
  ui: v.optional(v.boolean(), true),
  indent: v.exactOptional(v.boolean()),
  prometheus: v.optional(v.boolean(), false),
  remoteExec: v.optional(v.boolean(), false),
  coordinates: v.optional(v.boolean(), true),
  watches: v.optional(v.array(v.custom<WatchConfig>(isWatch, "expected watches as {params, handler}")), []),
  watchPaths: v.optional(v.array(v.string()), []),
});

/** @throws InputError with the key and what would be right */
export function configure(raw: unknown): ConsulConfig {
  const result = v.safeParse(schema, raw ?? {});
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw new InputError(`consul.${v.getDotPath(issue) ?? ""}`, issue.message);
}

function isWatch(raw: unknown): boolean {
  const { params, handler } = (raw ?? {}) as Partial<WatchConfig>;
  if (params === undefined || (handler?.kind !== "script" && handler?.kind !== "http")) return false;
  try {
    planOf(params);
    return true;
  } catch {
    return false;
  }
}
