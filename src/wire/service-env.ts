// What containers and processes say about themselves in SERVICE_* variables (and labels), read as Registrator reads it.

/** The SERVICE_* entries that hold for one port: keys without prefix, in lower case. */
export interface Metadata {
  readonly values: ReadonlyMap<string, string>;
  /** Keys whose value was given for this port (`SERVICE_80_NAME`), not for all. */
  readonly fromPort: ReadonlySet<string>;
}

const PREFIX = "SERVICE_";
const DNS_NAME = /^[A-Za-z0-9_-]{1,63}$/;
const META_PAIRS = 64;
const META_KEY_LENGTH = 128;
const META_VALUE_LENGTH = 512;
const META_KEY = /^[A-Za-z0-9_-]+$/;
const META_RESERVED = "consul-";
/** What Go's strconv.Atoi accepts, as far as it is a port number at all. */
const INTEGER = /^[+-]?\d+$/;
const INT64_MAX = 9223372036854775807n;

function isInteger(text: string): boolean {
  if (!INTEGER.test(text)) return false;
  const value = BigInt(text.replace(/^\+/, ""));
  return value <= INT64_MAX && value >= -INT64_MAX - 1n;
}

/**
 * The entries for an exposed port ("80"). Environment first, then labels, so that at one level labels win; an entry for the port wins
 * over an entry for all ports whatever the order. Labels that differ only in case are taken in their byte order, the last one wins.
 * Source: Registrator 7.4.0, bridge/util.go `serviceMetaData` (recorded in test/golden/registrator/units.json).
 */
export function serviceMetadata(
  env: readonly string[],
  labels: Readonly<Record<string, string>>,
  exposedPort: string,
): Metadata {
  const values = new Map<string, string>();
  const fromPort = new Set<string>();
  const entries = [
    ...env,
    ...Object.keys(labels)
      .sort()
      .map((key) => `${key}=${labels[key]}`),
  ];
  for (const entry of entries) {
    const equals = entry.indexOf("=");
    if (!entry.startsWith(PREFIX) || equals < 0) continue;
    const key = entry.slice(PREFIX.length, equals).toLowerCase();
    if (fromPort.has(key)) continue;
    const value = entry.slice(equals + 1);
    const underscore = key.indexOf("_");
    const first = underscore < 0 ? key : key.slice(0, underscore);
    if (underscore >= 0 && isInteger(first)) {
      if (first !== exposedPort) continue;
      const rest = key.slice(underscore + 1);
      values.set(rest, value);
      fromPort.add(rest);
    } else values.set(key, value);
  }
  return { values, fromPort };
}

/** Longer values are cut: words are for people. */
const LONGEST_WORD = 200;

/** The ports that entries are about by their number (`SERVICE_8080_NAME`), with the first such entry's key. */
export function portsSpokenOf(
  env: readonly string[],
  labels: Readonly<Record<string, string>>,
): ReadonlyMap<string, string> {
  const spoken = new Map<string, string>();
  for (const entry of [...env, ...Object.keys(labels).map((key) => `${key}=`)]) {
    const [, key = "", port = ""] = /^(SERVICE_(\d+)_[^=]+)=/.exec(entry) ?? [];
    if (port !== "" && !spoken.has(port)) spoken.set(port, key);
  }
  return spoken;
}

/** What is said for a port, or for all, as its author wrote it: "env SERVICE_NAME=web", "label SERVICE_80_TAGS=a". */
export function wordsOf(
  env: readonly string[],
  labels: Readonly<Record<string, string>>,
  exposedPort: string,
): readonly string[] {
  const holds = (entry: string): boolean => {
    const key = /^SERVICE_([^=]*)=/.exec(entry)?.[1] ?? "";
    const [first = "", ...rest] = key.split("_");
    return key !== "" && (rest.length === 0 || !isInteger(first) || first === exposedPort);
  };
  const said = (where: string, entries: readonly string[]): readonly string[] =>
    entries
      .filter(holds)
      .map((entry) => `${where} ${entry.length > LONGEST_WORD ? `${entry.slice(0, LONGEST_WORD)}…` : entry}`);
  const pairs = Object.keys(labels)
    .sort()
    .map((key) => `${key}=${labels[key]}`);
  return [...said("env", env), ...said("label", pairs)];
}

/** Splits a list of tags at commas that no backslash precedes; `\,` is a comma, empty items vanish, blanks stay. In written order. */
function splitTags(text: string): string[] {
  return text
    .split(/(?<!\\),/)
    .map((tag) => tag.replaceAll("\\,", ","))
    .filter((tag) => tag !== "");
}

/** The tags of several lists. Registrator hands on each list in reverse order (`reversed`), which was an accident of its splitter. */
export function combineTags(lists: readonly string[], reversed: boolean): string[] {
  return lists.flatMap((list) => (reversed ? splitTags(list).reverse() : splitTags(list)));
}

/** Why a service's name will not do in DNS, and what would; undefined where it does. */
export function nameComplaint(name: string): string | undefined {
  return DNS_NAME.test(name)
    ? undefined
    : `its name ${JSON.stringify(name.slice(0, LONGEST_WORD))} is found over HTTP only: in DNS a name has letters, digits, - and _, 63 at most`;
}

/** Attributes as labels, within the limits of Consul's Meta: what Consul would refuse is left out by name, the rest stays. */
export function labelsOf(
  attributes: ReadonlyMap<string, string>,
  complain: (text: string) => void,
): Readonly<Record<string, string>> {
  const labels: Record<string, string> = Object.create(null);
  let pairs = 0;
  const refuse = (key: string, why: string): void =>
    complain(`SERVICE_${key.slice(0, META_KEY_LENGTH).toUpperCase()} is not a label: ${why}`);
  for (const [key, value] of [...attributes].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (key === "") refuse(key, "nothing stands behind the underscore");
    else if (!META_KEY.test(key)) refuse(key, "a key may hold letters, digits, - and _ only");
    else if (key.length > META_KEY_LENGTH)
      refuse(key, `its key has ${key.length} characters, ${META_KEY_LENGTH} are allowed`);
    else if (key.startsWith(META_RESERVED)) refuse(key, `keys that begin with "${META_RESERVED}" are reserved`);
    else if (Buffer.byteLength(value) > META_VALUE_LENGTH)
      refuse(key, `its value has ${Buffer.byteLength(value)} bytes, ${META_VALUE_LENGTH} are allowed`);
    else if (pairs === META_PAIRS)
      refuse(key, `a service has at most ${META_PAIRS} labels, in the order of their keys`);
    else {
      labels[key] = value;
      pairs++;
    }
  }
  return labels;
}
