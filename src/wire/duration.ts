// Go durations ("1m30s", "500ms"), as Consul and its neighbours write them, to and from milliseconds.
import { InputError } from "../base/error.ts";

const UNIT_NS: ReadonlyMap<string, bigint> = new Map([
  ["ns", 1n],
  ["us", 1_000n],
  ["µs", 1_000n], // U+00B5, the micro sign
  ["μs", 1_000n], // U+03BC, the Greek letter
  ["ms", 1_000_000n],
  ["s", 1_000_000_000n],
  ["m", 60_000_000_000n],
  ["h", 3_600_000_000_000n],
]);
const MAX_NS = (1n << 63n) - 1n;
const NS_PER_MS = 1_000_000;
const PART = /^(\d*)(?:\.(\d*))?([^\d.]*)/;

/** Whole milliseconds exactly, the rest with a double's precision. */
function toMs(ns: bigint): number {
  return Number(ns / 1_000_000n) + Number(ns % 1_000_000n) / NS_PER_MS;
}

/**
 * Milliseconds of a Go duration: a possibly signed row of decimal numbers, each with a unit out of ns, us, µs, ms, s, m, h ("-1.5h", "2h45m", "0").
 * Follows time.ParseDuration of the Go library, its error texts included.
 * @throws InputError naming `where` (may be "") for everything Go refuses
 */
export function parseGoDuration(text: string, where = ""): number {
  const quoted = JSON.stringify(text);
  const invalid = (): InputError => new InputError(where, `time: invalid duration ${quoted}`);
  const negative = text.startsWith("-");
  let rest = negative || text.startsWith("+") ? text.slice(1) : text;
  if (rest === "0") return 0;
  if (rest === "") throw invalid();
  let ns = 0n;
  while (rest !== "") {
    const [whole = "", digits = "", fraction, unit = ""] = PART.exec(rest) ?? [];
    if (digits === "" && (fraction === undefined || fraction === "")) throw invalid();
    if (unit === "") throw new InputError(where, `time: missing unit in duration ${quoted}`);
    const factor = UNIT_NS.get(unit);
    if (factor === undefined)
      throw new InputError(where, `time: unknown unit ${JSON.stringify(unit)} in duration ${quoted}`);
    ns += BigInt(digits) * factor;
    // Digits far behind the point cannot change a nanosecond, but would cost time.
    const near = (fraction ?? "").slice(0, 18);
    if (near !== "") ns += (BigInt(near) * factor) / 10n ** BigInt(near.length);
    if (ns > MAX_NS + (negative ? 1n : 0n)) throw invalid();
    rest = rest.slice(whole.length);
  }
  return negative ? -toMs(ns) : toMs(ns);
}

/**
 * Milliseconds of a duration as Consul's JSON carries it: a Go duration in text, or a number of nanoseconds.
 * @throws InputError naming `where` for anything else
 */
export function parseDurationValue(value: unknown, where = ""): number {
  if (typeof value === "string") return parseGoDuration(value, where);
  if (typeof value === "number" && Number.isFinite(value)) return Math.trunc(value) / NS_PER_MS;
  throw new InputError(
    where,
    `${JSON.stringify(value)} is not a duration: write it like "10s" or "1m30s" (a number counts nanoseconds)`,
  );
}

/** Writes milliseconds as Go's Duration.String does: "1h0m0s", "1.5s", "500ms", "0s". Beyond 2^33 ms (99 days) fractions of a millisecond are dropped. */
export function formatGoDuration(ms: number): string {
  const wholeMs = Math.abs(ms) >= 2 ** 33 ? Math.round(ms) : Math.trunc(ms);
  const signedNs =
    BigInt(wholeMs) * 1_000_000n + (Math.abs(ms) >= 2 ** 33 ? 0n : BigInt(Math.round((ms - wholeMs) * NS_PER_MS)));
  const sign = signedNs < 0n ? "-" : "";
  const ns = signedNs < 0n ? -signedNs : signedNs;
  if (ns === 0n) return "0s";
  if (ns < 1_000n) return `${sign}${ns}ns`;
  if (ns < 1_000_000n) return `${sign}${decimal(ns, 3)}µs`;
  if (ns < 1_000_000_000n) return `${sign}${decimal(ns, 6)}ms`;
  const seconds = ns / 1_000_000_000n;
  const hours = seconds / 3600n;
  const minutes = (seconds / 60n) % 60n;
  let text = sign;
  if (hours > 0n) text += `${hours}h`;
  if (hours > 0n || minutes > 0n) text += `${minutes}m`;
  return `${text}${decimal(ns % 60_000_000_000n, 9)}s`;
}

/** `value` divided by 10^`places`, without trailing zeros. */
function decimal(value: bigint, places: number): string {
  const digits = value.toString().padStart(places + 1, "0");
  const fraction = digits.slice(-places).replace(/0+$/, "");
  return digits.slice(0, -places) + (fraction === "" ? "" : `.${fraction}`);
}
