// Registrator's command line, read as Go's flag package reads it: the flags, their texts, and what is said about wrong ones.

/** The flags' values. */
export interface RegistratorFlags {
  readonly ip: string;
  readonly internal: boolean;
  readonly explicit: boolean;
  readonly useIpFromLabel: string;
  readonly tags: string;
  readonly ttlSeconds: number;
  readonly ttlRefreshSeconds: number;
  readonly resyncSeconds: number;
  readonly deregister: string;
  readonly retryAttempts: number;
  readonly retryIntervalMs: number;
  readonly cleanup: boolean;
  /** The registry URI. */
  readonly uri: string;
}

/** What came of a command line: flags, or the end with a text for standard error. */
export type Parsed = { readonly flags: RegistratorFlags } | { readonly exitCode: 0 | 2; readonly text: string };

interface Flag {
  readonly kind: "string" | "int" | "bool";
  readonly usage: string;
  readonly value: string | number | boolean;
}

/** Name → flag, in the order of names, as usage shows them. Texts: Registrator 7.4.0, registrator.go. */
const FLAGS: ReadonlyMap<string, Flag> = new Map<string, Flag>([
  ["cleanup", { kind: "bool", usage: "Remove dangling services", value: false }],
  ["deregister", { kind: "string", usage: 'Deregister exited services "always" or "on-success"', value: "always" }],
  ["explicit", { kind: "bool", usage: "Only register containers which have SERVICE_NAME label set", value: false }],
  ["internal", { kind: "bool", usage: "Use internal ports instead of published ones", value: false }],
  ["ip", { kind: "string", usage: "IP for ports mapped to the host", value: "" }],
  ["resync", { kind: "int", usage: "Frequency with which services are resynchronized", value: 0 }],
  [
    "retry-attempts",
    {
      kind: "int",
      usage: "Max retry attempts to establish a connection with the backend. Use -1 for infinite retries",
      value: 0,
    },
  ],
  ["retry-interval", { kind: "int", usage: "Interval (in millisecond) between retry-attempts.", value: 2000 }],
  ["tags", { kind: "string", usage: "Append tags for all registered services (supports Go template)", value: "" }],
  ["ttl", { kind: "int", usage: "TTL for services (default is no expiry)", value: 0 }],
  ["ttl-refresh", { kind: "int", usage: "Frequency with which service TTLs are refreshed", value: 0 }],
  [
    "useIpFromLabel",
    { kind: "string", usage: "Use IP which is stored in a label assigned to the container", value: "" },
  ],
]);

const BOOLEANS: ReadonlyMap<string, boolean> = new Map([
  ...["1", "t", "T", "TRUE", "true", "True"].map((word) => [word, true] as const),
  ...["0", "f", "F", "FALSE", "false", "False"].map((word) => [word, false] as const),
]);

/** The usage text as Go's PrintDefaults writes it. */
export function usage(): string {
  let text = "Usage of registrator:\n  registrator [options] <registry URI>\n\n";
  for (const [name, { kind, usage: about, value }] of FLAGS) {
    const shown = kind === "string" ? JSON.stringify(value) : String(value);
    const byDefault = value === "" || value === 0 || value === false ? "" : ` (default ${shown})`;
    text += `  -${name}${kind === "bool" ? "" : ` ${kind}`}\n    \t${about}${byDefault}\n`;
  }
  return text;
}

/** Reads the words behind the program's name. */
export function parseFlags(words: readonly string[]): Parsed {
  const values = new Map<string, string | number | boolean>([...FLAGS].map(([name, { value }]) => [name, value]));
  const wrong = (text: string): Parsed => ({ exitCode: 2, text: `${text}\n${usage()}` });
  let at = 0;
  for (; at < words.length; at++) {
    const word = words[at] ?? "";
    if (word.length < 2 || !word.startsWith("-")) break;
    if (word === "--") {
      at++;
      break;
    }
    const bare = word.slice(word.startsWith("--") ? 2 : 1);
    if (bare.startsWith("-") || bare.startsWith("=")) return wrong(`bad flag syntax: ${word}`);
    const equals = bare.indexOf("=");
    const name = equals < 0 ? bare : bare.slice(0, equals);
    let given = equals < 0 ? undefined : bare.slice(equals + 1);
    const flag = FLAGS.get(name);
    if (flag === undefined) {
      if (name === "help" || name === "h") return { exitCode: 0, text: usage() };
      return wrong(`flag provided but not defined: -${name}`);
    }
    if (flag.kind === "bool") {
      const value = BOOLEANS.get(given ?? "true");
      if (value === undefined) return wrong(`invalid boolean value ${JSON.stringify(given)} for -${name}: parse error`);
      values.set(name, value);
      continue;
    }
    if (given === undefined) {
      given = words[++at];
      if (given === undefined) return wrong(`flag needs an argument: -${name}`);
    }
    if (flag.kind === "int") {
      const value = integer(given);
      if (value === undefined) return wrong(`invalid value ${JSON.stringify(given)} for flag -${name}: parse error`);
      values.set(name, value);
    } else values.set(name, given);
  }
  const rest = words.slice(at);
  const [uri] = rest;
  if (uri === undefined) return { exitCode: 2, text: `Missing required argument for registry URI.\n\n${usage()}` };
  if (rest.length > 1)
    return {
      exitCode: 2,
      text: `Extra unparsed arguments:\n  ${rest.slice(1).join(" ")}\nOptions should come before the registry URI argument.\n\n${usage()}`,
    };
  const text = (name: string): string => String(values.get(name));
  const number = (name: string): number => Number(values.get(name));
  return {
    flags: {
      ip: text("ip"),
      internal: values.get("internal") === true,
      explicit: values.get("explicit") === true,
      useIpFromLabel: text("useIpFromLabel"),
      tags: text("tags"),
      ttlSeconds: number("ttl"),
      ttlRefreshSeconds: number("ttl-refresh"),
      resyncSeconds: number("resync"),
      deregister: text("deregister"),
      retryAttempts: number("retry-attempts"),
      retryIntervalMs: number("retry-interval"),
      cleanup: values.get("cleanup") === true,
      uri,
    },
  };
}

/** What Go's strconv.ParseInt(text, 0, 64) takes; undefined for the rest. */
function integer(text: string): number | undefined {
  const [, sign, digits = ""] = /^([+-]?)(0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|0[bB][01]+|0|[1-9][0-9]*)$/.exec(text) ?? [];
  if (digits === "") return undefined;
  const value = Number(/^0[0-7]+$/.test(digits) ? `0o${digits.slice(1)}` : digits);
  return sign === "-" ? -value : value;
}

/** What is wrong with values that can be read, in Registrator's words; undefined where nothing is. */
export function faultOf(flags: RegistratorFlags): string | undefined {
  const { ttlSeconds: ttl, ttlRefreshSeconds: refresh } = flags;
  if ((ttl === 0 && refresh > 0) || (ttl > 0 && refresh === 0))
    return "-ttl and -ttl-refresh must be specified together or not at all";
  if (ttl > 0 && ttl <= refresh) return "-ttl must be greater than -ttl-refresh";
  if (flags.retryIntervalMs <= 0) return "-retry-interval must be greater than 0";
  if (flags.deregister !== "always" && flags.deregister !== "on-success")
    return '-deregister must be "always" or "on-success"';
  return undefined;
}
