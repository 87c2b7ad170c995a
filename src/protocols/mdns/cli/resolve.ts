// `avahi-resolve` without a daemon: the address of a host's name on the LAN, or the name of an address.
import { ipBytes, ipText, type Name, nameFromText, reverseName, TYPE, textFromLabel } from "../../../wire/dns/index.ts";
import type { Heard, Mdns } from "../engine.ts";
import { escapeLabel } from "../format.ts";
import { hostName } from "../service-file-values.ts";
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
    shell.out(`${program} [options] -n <host name ...>\n${program} [options] -a <address ... >\n\n${HELP}`);
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
  const types = given.has("4") ? [TYPE.A] : given.has("6") ? [TYPE.AAAA] : [TYPE.A, TYPE.AAAA];
  const questions: Question[] = [];
  for (const word of parsed.words) {
    const question = what === "name" ? aboutName(word, types) : aboutAddress(word);
    if (typeof question === "string") {
      shell.err(`${question}\n`);
      return 1;
    }
    questions.push(question);
  }
  return await withEngine(machine, async (mdns) => {
    if (mdns.places.length === 0) {
      shell.err("No network interface can be used for multicast DNS\n");
      return 1;
    }
    if (given.has("verbose")) shell.err(`Server version: ${program}; Host name: ${mdns.hostName}\n`);
    await Promise.all(questions.map((question) => answer(question, shell, machine, mdns)));
    if (shell.signal.aborted) quitting(shell);
    return 0;
  });
}

/** A word of the command line as a question. */
interface Question {
  readonly name: Name;
  readonly types: readonly number[];
  /** "host name 'a.local'": for the failure. */
  readonly about: string;
  /** The line for a record; undefined for records that answer nothing. */
  readonly show: (heard: Heard) => string | undefined;
}

const textOf = (name: Name): string => name.map((label) => escapeLabel(textFromLabel(label))).join(".");

function aboutName(word: string, types: readonly number[]): Question | string {
  if (hostName(word) === undefined) return "Failed to create host name resolver: Invalid host name";
  return {
    name: nameFromText(word),
    types,
    about: `host name '${word}'`,
    show: ({ name, data }) =>
      data.kind === "A" || data.kind === "AAAA" ? `${textOf(name)}\t${data.address}` : undefined,
  };
}

function aboutAddress(word: string): Question | string {
  const bytes = ipBytes(word);
  if (bytes === undefined) return `Failed to parse address '${word}'`;
  return {
    name: reverseName(bytes),
    types: [TYPE.PTR],
    about: `address '${word}'`,
    show: ({ data }) => (data.kind === "PTR" ? `${ipText(bytes)}\t${textOf(data.target)}` : undefined),
  };
}

/** Prints the first record that answers a question; says that there is none after Avahi's patience. */
async function answer(question: Question, shell: Shell, machine: Machine, mdns: Mdns): Promise<void> {
  const ending = new Ending(shell.signal);
  let line: string | undefined;
  const following = question.types.map((type) =>
    mdns.query({ name: question.name, type }, (event) => {
      if (event.kind !== "add" || line !== undefined) return;
      line = question.show(event.found);
      if (line !== undefined) ending.end();
    }),
  );
  const timer = machine.clock.after(RESOLVE_MS, ending.end, true);
  await ending.reached;
  timer.cancel();
  for (const each of following) each.close();
  if (line !== undefined) shell.out(`${line}\n`);
  else if (!shell.signal.aborted) shell.err(`Failed to resolve ${question.about}: Timeout reached\n`);
}
