// `avahi-resolve` without a daemon: the address of a host's name on the LAN, or the name of an address.
import { ipBytes, type Name, nameFromText, reverseName, TYPE, textFromLabel } from "../../../wire/dns/index.ts";
import type { Heard, Mdns } from "../engine.ts";
import { escapeLabel } from "../format.ts";
import { type Flag, getopt } from "./getopt.ts";
import { Ending, type Machine, quitting, RESOLVE_MS, type Shell, withEngine } from "./machine.ts";

const FLAGS: Readonly<Record<string, Flag>> = {
  help: { letter: "h" },
  version: { letter: "V" },
  name: { letter: "n" },
  address: { letter: "a" },
  verbose: { letter: "v" },
  "4": { letter: "4" },
  "6": { letter: "6" },
};

const HELP = `    -h --help            Show this help
    -V --version         Show version
    -n --name            Resolve host name
    -a --address         Resolve address
    -v --verbose         Enable verbose mode
    -6                   Lookup IPv6 address
    -4                   Lookup IPv4 address
`;

/** Runs the command line. @returns the exit code: 1 for a wrong command line and where nothing can be heard; 0 for the rest, what could not be resolved included, as Avahi has it */
export async function resolve(words: readonly string[], shell: Shell, machine: Machine): Promise<number> {
  const { program } = shell;
  const parsed = getopt(words, FLAGS);
  if (typeof parsed === "string") {
    shell.err(`${program}: ${parsed}\n`);
    return 1;
  }
  let what = program.includes("address") ? "address" : program.includes("host-name") ? "name" : "";
  const given = new Set<string>();
  for (const { name } of parsed.flags) {
    if (/^(help|version|name|address)$/.test(name)) what = name;
    given.add(name);
  }
  if (what === "help") {
    const of = (flag: string, rest: string): string => `${program} [options] ${flag} <${rest} ...>\n`;
    shell.out(`${of("-n", "host name")}${of("-a", "address")}\n${HELP}`);
    return 0;
  }
  if (what === "version") {
    shell.out(`${program} 0.8\n`);
    return 0;
  }
  if (what === "" || parsed.words.length === 0) {
    shell.err(what === "" ? "No command specified.\n" : "Too few arguments\n");
    return 1;
  }
  const types = given.has("4") ? [TYPE.A] : given.has("6") ? [TYPE.AAAA] : [TYPE.AAAA, TYPE.A];
  return await withEngine(machine, async (mdns) => {
    if (mdns.places.length === 0) {
      shell.err("No network interface can be used for multicast DNS\n");
      return 1;
    }
    if (given.has("verbose")) shell.err(`Server version: ${program}; Host name: ${mdns.hostName}\n`);
    await Promise.all(parsed.words.map((word) => (what === "name" ? name(word) : address(word))));
    if (shell.signal.aborted) quitting(shell);
    return 0;

    /** Prints the first address of a host. */
    function name(word: string): Promise<void> {
      const asked = spelled(word);
      if (asked === undefined) return failed("host name", word, "Invalid host name");
      return first(mdns, shell, machine, asked, types, "host name", word, ({ data }) =>
        data.kind === "A" || data.kind === "AAAA" ? data.address : undefined,
      );
    }

    /** Prints the first name of an address. */
    function address(word: string): Promise<void> {
      const bytes = ipBytes(word);
      if (bytes === undefined) return failed("address", word, "Invalid IP address");
      return first(mdns, shell, machine, reverseName(bytes), [TYPE.PTR], "address", word, ({ data }) =>
        data.kind === "PTR" ? data.target.map((label) => escapeLabel(textFromLabel(label))).join(".") : undefined,
      );
    }

    async function failed(kind: string, word: string, why: string): Promise<void> {
      shell.err(`Failed to resolve ${kind} '${word}': ${why}\n`);
    }
  });
}

function spelled(text: string): Name | undefined {
  try {
    return nameFromText(text);
  } catch {
    return undefined;
  }
}

/** Prints the first record of which something can be shown behind the word that was asked for; says that there is none after Avahi's patience. */
async function first(
  mdns: Mdns,
  shell: Shell,
  machine: Machine,
  name: Name,
  types: readonly number[],
  kind: string,
  word: string,
  show: (heard: Heard) => string | undefined,
): Promise<void> {
  const ending = new Ending(shell.signal);
  let found: string | undefined;
  const following = types.map((type) =>
    mdns.query({ name, type }, (event) => {
      if (event.kind !== "add" || found !== undefined) return;
      found = show(event.found);
      if (found !== undefined) ending.end();
    }),
  );
  const timer = machine.clock.after(RESOLVE_MS, ending.end, true);
  await ending.reached;
  timer.cancel();
  for (const each of following) each.close();
  if (found !== undefined) shell.out(`${word.replace(/\.$/, "")}\t${found}\n`);
  else if (!shell.signal.aborted) shell.err(`Failed to resolve ${kind} '${word}': Timeout reached\n`);
}
