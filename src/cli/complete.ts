// What may stand next on a command line: commands, flags, and names that the agent knows.
import { Command as Commander, type Option } from "commander";
import { type ClientOptions, withClient } from "./client.ts";
import { COMMANDS } from "./commands.ts";
import type { Io } from "./io.ts";

/** One word that may stand next. */
export interface Candidate {
  readonly word: string;
  /** What it is, in a few words; may be empty. */
  readonly about: string;
}

/** The kinds of names that the agent is asked for. */
type Kind = "services" | "nodes" | "datacenters" | "keys";

/** Flags and arguments whose values are names of a kind. */
const FLAGS: Readonly<Record<string, Kind>> = {
  service: "services",
  node: "nodes",
  near: "nodes",
  datacenter: "datacenters",
};
const ARGUMENTS: Readonly<Record<string, Kind>> = {
  service: "services",
  node: "nodes",
  node1: "nodes",
  node2: "nodes",
  key: "keys",
  prefix: "keys",
};
/** In these the name is new: what exists is no help. */
const NAMES_ANEW: ReadonlySet<string> = new Set(["agent", "run", "register", "services", "up"]);
/** A shell waits for this: an agent that does not answer soon is not waited for. */
const PATIENCE_MS = 1_000;

/**
 * The candidates for the last of `words` (which may be empty); `words` are those behind the program's name. Never rejects for want of
 * an agent: then there are no names.
 */
export async function candidates(words: readonly string[], io: Io): Promise<readonly Candidate[]> {
  const current = words.at(-1) ?? "";
  const before = words.slice(0, -1);
  const starting = (all: readonly Candidate[]): readonly Candidate[] =>
    all.filter(({ word }) => word.startsWith(current));
  const [name, ...rest] = before[0] === "help" ? before.slice(1) : before;
  if (name === undefined) return starting(Object.entries(COMMANDS).map(([word, [about]]) => ({ word, about })));
  const entry = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (entry === undefined || rest.includes("--")) return [];
  const { command } = await entry[1]();
  let parser = new Commander(name);
  command.define(parser, io, () => {});
  const operands: string[] = [];
  const given = new Map<string, string>();
  let open: Option | undefined;
  for (const word of rest) {
    if (open !== undefined) {
      given.set(open.attributeName(), word);
      open = undefined;
      continue;
    }
    const flag = /^--?([A-Za-z][\w-]*)(?:=([\s\S]*))?$/.exec(word);
    if (flag !== null) {
      const option = optionOf(parser, flag[1] ?? "");
      if (option === undefined || option.isBoolean() || option.negate) continue;
      if (flag[2] === undefined) open = option;
      else given.set(option.attributeName(), flag[2]);
      continue;
    }
    const sub = operands.length === 0 ? parser.commands.find((each) => each.name() === word) : undefined;
    if (sub !== undefined) parser = sub as Commander;
    else operands.push(word);
  }
  const fresh = NAMES_ANEW.has(name);
  const names = async (kind: Kind | undefined, text: string): Promise<readonly Candidate[]> =>
    kind === undefined || fresh ? [] : await ask(kind, text, Object.fromEntries(given), io);
  if (open !== undefined) return starting(await valuesOf(open, current, names));
  const assigned = /^(--?([A-Za-z][\w-]*)=)([\s\S]*)$/.exec(current);
  if (assigned !== null) {
    const [, head = "", flag = "", text = ""] = assigned;
    const option = optionOf(parser, flag);
    if (option === undefined) return [];
    const values = await valuesOf(option, text, names);
    return starting(values.map(({ word, about }) => ({ word: head + word, about })));
  }
  if (current.startsWith("-")) {
    // Who types one dash, as Consul's people do, goes on with one.
    const dashes = /^-[^-]/.test(current) ? "-" : "--";
    const own = parser.options.flatMap(({ long, description, hidden }) =>
      long === undefined || hidden ? [] : [{ word: dashes + long.slice(2), about: description }],
    );
    return starting([...own, { word: `${dashes}help`, about: "show this help" }]);
  }
  if (parser.commands.length > 0 && operands.length === 0)
    return starting(parser.commands.map((sub) => ({ word: sub.name(), about: sub.description() })));
  if (command.passThrough && operands.length > 0) return [];
  const argument =
    parser.registeredArguments[operands.length] ?? parser.registeredArguments.find((each) => each.variadic);
  if (argument === undefined) return [];
  if (argument.argChoices !== undefined) return starting(argument.argChoices.map((word) => ({ word, about: "" })));
  return starting(await names(ARGUMENTS[argument.name()], current));
}

function optionOf(parser: Commander, name: string): Option | undefined {
  return parser.options.find(({ long, short }) => long === `--${name}` || short === `-${name}`);
}

async function valuesOf(
  option: Option,
  text: string,
  names: (kind: Kind | undefined, text: string) => Promise<readonly Candidate[]>,
): Promise<readonly Candidate[]> {
  if (option.argChoices !== undefined) return option.argChoices.map((word) => ({ word, about: "" }));
  return await names(FLAGS[option.long?.slice(2) ?? ""], text);
}

/** Names that the agent knows; none where it does not answer. */
async function ask(kind: Kind, text: string, options: ClientOptions, io: Io): Promise<readonly Candidate[]> {
  try {
    return await withClient(options, io, async (client): Promise<readonly Candidate[]> => {
      const get = async (path: string): Promise<unknown> =>
        JSON.parse(await client.send("GET", path, { headTimeoutMs: PATIENCE_MS }));
      switch (kind) {
        case "services":
          return Object.keys((await get("/v1/catalog/services")) as object).map((word) => ({ word, about: "service" }));
        case "nodes":
          return ((await get("/v1/catalog/nodes")) as { Node: string }[]).map(({ Node }) => ({
            word: Node,
            about: "node",
          }));
        case "datacenters":
          return ((await get("/v1/catalog/datacenters")) as string[]).map((word) => ({ word, about: "datacenter" }));
        case "keys": {
          const path = text.split("/").map(encodeURIComponent).join("/");
          return ((await get(`/v1/kv/${path}?keys&separator=/`)) as string[]).map((word) => ({ word, about: "key" }));
        }
      }
    });
  } catch {
    // A line that is being typed is no place for an error: without an agent there are no names to offer.
    return [];
  }
}
