// The hook's configuration: where its table lies, and what services get that ask for nothing.
import { InputError } from "../../base/error.ts";
import { POLICIES } from "../../wire/hook-table.ts";
import type { Defaults } from "./composer.ts";

/** Under `protocols.shim` of the settings; in configuration files `hook`. */
export interface ShimConfig extends Defaults {
  /** True: a table that is there is emptied, and none is written. */
  readonly off: boolean;
  /** The table's path; absent = in a temporary folder, from the first time that somebody asks. */
  readonly table?: string;
  /** True where somebody said where the table is to be. */
  readonly placed: boolean;
  /** A second domain that names lie in, in lower case. */
  readonly altDomain?: string;
}

const DEFAULTS: Defaults = { policy: "p2c", prefetch: 0, prefetchIdleMs: 10_000, tryMs: 1_000, locality: true };

/** Reads raw configuration; `ownTable` in it is the table's path where nobody says one. @throws InputError with the key and what would be right */
export function configure(raw: unknown): ShimConfig {
  if (raw === undefined || raw === true) return { off: false, placed: false, ...DEFAULTS };
  if (raw === false) return { off: true, placed: false, ...DEFAULTS };
  if (typeof raw !== "object" || raw === null || Array.isArray(raw))
    throw new InputError(
      "hook",
      `expected false or an object such as {"table": "/run/trilith/table"}, but got ${JSON.stringify(raw)}`,
    );
  const {
    enabled = true,
    table,
    ownTable,
    altDomain,
    balance,
    prefetch,
    prefetchIdleMs,
    tryMs,
    locality,
    ...unknown
  } = raw as Record<string, unknown>;
  const [strange] = Object.keys(unknown);
  if (strange !== undefined)
    throw new InputError(
      `hook.${strange}`,
      'unknown key; known are "table", "balance", "prefetch", "prefetchIdleMs", "tryMs", "locality", "altDomain" and "enabled"',
    );
  const wrong = (key: string, expected: string, got: unknown): never => {
    throw new InputError(`hook.${key}`, `expected ${expected}, but got ${JSON.stringify(got)}`);
  };
  if (typeof enabled !== "boolean") wrong("enabled", "true or false", enabled);
  if (table !== undefined && (typeof table !== "string" || !table.startsWith("/") || table.endsWith("/")))
    wrong("table", 'the path of a file from "/" on, such as "/run/trilith/table"', table);
  if (altDomain !== undefined && (typeof altDomain !== "string" || altDomain === ""))
    wrong("altDomain", 'a DNS name such as "example"', altDomain);
  const policy = balance === undefined ? DEFAULTS.policy : POLICIES.find((each) => each === balance);
  const whole = (key: string, value: unknown, otherwise: number, least: number, most: number): number => {
    if (value === undefined) return otherwise;
    if (!Number.isInteger(value) || Number(value) < least || Number(value) > most)
      wrong(key, `a whole number from ${least} to ${most}`, value);
    return Number(value);
  };
  if (locality !== undefined && typeof locality !== "boolean") wrong("locality", "true or false", locality);
  return {
    off: enabled === false,
    placed: table !== undefined,
    ...(table === undefined && ownTable === undefined ? {} : { table: (table ?? ownTable) as string }),
    ...(altDomain === undefined ? {} : { altDomain: (altDomain as string).toLowerCase().replace(/^\.|\.$/g, "") }),
    policy: policy ?? wrong("balance", `one of ${POLICIES.join(", ")}`, balance),
    prefetch: whole("prefetch", prefetch, DEFAULTS.prefetch, 0, 999),
    prefetchIdleMs: whole("prefetchIdleMs", prefetchIdleMs, DEFAULTS.prefetchIdleMs, 100, 3_600_000),
    tryMs: whole("tryMs", tryMs, DEFAULTS.tryMs, 10, 60_000),
    locality: locality === undefined ? DEFAULTS.locality : (locality as boolean),
  };
}
