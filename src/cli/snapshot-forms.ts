// What `trilith snapshot inspect` prints of a snapshot, in Consul's forms; and the file names that `save -append-filename` makes.
import { InputError } from "../base/error.ts";
import { table } from "./io.ts";

/** How much of something a snapshot holds; names and shape are those of Consul's JSON. */
export interface Stat {
  readonly Name: string;
  /** Bytes. */
  readonly Sum: number;
  readonly Count: number;
}

/** As `consul snapshot inspect -format json` prints it. */
export interface Inspected {
  readonly Meta: {
    readonly ID: string;
    readonly Size: number;
    readonly Index: number;
    readonly Term: number;
    readonly Version: number;
  };
  readonly Stats: readonly Stat[];
  /** Null where nobody asked for it, or no key is meant. */
  readonly StatsKV: readonly Stat[] | null;
  readonly TotalSize: number;
  readonly TotalSizeKV: number;
}

/** The largest first, as Consul has them. */
export const bySize = (stats: Iterable<Stat>): readonly Stat[] =>
  [...stats].sort((a, b) => b.Sum - a.Sum || (a.Name < b.Name ? -1 : 1));

/** The keys with a common beginning of `depth` names together; only those that begin with `filter`. */
export function keyStats(
  keys: Iterable<{ readonly key: string; readonly bytes: number }>,
  depth: number,
  filter: string,
): readonly Stat[] | null {
  const found = new Map<string, Stat>();
  for (const { key, bytes } of keys) {
    if (!key.startsWith(filter)) continue;
    const Name = key.split("/").slice(0, depth).join("/");
    const { Sum, Count } = found.get(Name) ?? { Sum: 0, Count: 0 };
    found.set(Name, { Name, Sum: Sum + bytes, Count: Count + 1 });
  }
  return found.size === 0 ? null : bySize(found.values());
}

/** Bytes as Consul shows them: "285B", "3.4KB", "0". */
export function byteSize(bytes: number): string {
  if (bytes === 0) return "0";
  const power = Math.min(4, Math.max(0, Math.floor(Math.log2(bytes) / 10)));
  return `${(bytes / 1024 ** power).toFixed(1).replace(/\.0$/, "")}${["B", "KB", "MB", "GB", "TB"][power]}`;
}

const LINE = [" ----", "----", "----"];

function sizes(name: string, stats: readonly Stat[], total: number): string {
  const rows = stats.map(({ Name, Count, Sum }) => [` ${Name}`, String(Count), byteSize(Sum)]);
  return `\n${table([[` ${name}`, "Count", "Size"], LINE, ...rows, LINE, [" Total", "", byteSize(total)]], COLUMNS)}`;
}

const COLUMNS = { whole: true, gap: 6 };

/** For people; `more`: rows that Consul does not have. */
export function prettyText(
  { Meta, Stats, StatsKV, TotalSize, TotalSizeKV }: Inspected,
  more: readonly (readonly [string, string])[],
): string {
  const head = [...Object.entries(Meta), ...more].map(([name, value]) => [` ${name}`, String(value)]);
  const keys = StatsKV === null ? "" : sizes("Key Name", StatsKV, TotalSizeKV);
  return `${table(head, COLUMNS)}${sizes("Type", Stats, TotalSize)}${keys}`;
}

/** What `-append-filename` knows, in the order in which it is appended. */
const APPENDED = ["version", "dc", "node", "status"];

/** @throws InputError */
export function appendedOf(value: string): ReadonlySet<string> {
  const words = value.split(",");
  for (const word of words)
    if (!APPENDED.includes(word))
      throw new InputError("-append-filename", `"${word}": expected ${APPENDED.join(", ")}, separated by commas`);
  return new Set(words);
}

/** What /v1/agent/self says, as far as it goes into a file's name. */
export interface SelfNames {
  readonly Config: { readonly Version: string; readonly Datacenter: string; readonly NodeName: string };
  readonly Stats?: { readonly consul?: { readonly leader?: string } };
}

/** The file's name with what was asked for before its extension: backup-1.19.0-dc1-alpha-leader.snap. */
export function appendedName(file: string, words: ReadonlySet<string>, { Config, Stats }: SelfNames): string {
  const dot = file.lastIndexOf(".");
  const end = dot > file.lastIndexOf("/") ? dot : file.length;
  const leader = Stats?.consul?.leader;
  const all: Readonly<Record<string, string | undefined>> = {
    version: Config.Version,
    dc: Config.Datacenter,
    node: Config.NodeName,
    status: leader === undefined ? undefined : leader === "true" ? "leader" : "follower",
  };
  const parts = APPENDED.filter((word) => words.has(word)).flatMap((word) => all[word] ?? []);
  return [file.slice(0, end), ...parts].join("-") + file.slice(end);
}
