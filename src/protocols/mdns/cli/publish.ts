// `trilith publish`, a stand-in for avahi-publish 0.8: announces one service, or one address under a name, until it is ended, without a daemon.
import { codeOf, InputError, messageOf } from "../../../base/error.ts";
import { ipFamily } from "../../../base/net.ts";
import type { HostAddress, Mdns, PublishEvent, Published, Service } from "../engine.ts";
import {
  domainName,
  hostName,
  instanceName,
  serviceType,
  stringFault,
  subtypeOf,
  tooMuchTxt,
} from "../service-file-values.ts";
import { type Flag, getopt } from "./getopt.ts";
import { Ending, type Machine, quitting, type Shell, withEngine } from "./machine.ts";

const FLAGS: Readonly<Record<string, Flag>> = {
  help: { letter: "h" },
  version: { letter: "V" },
  service: { letter: "s" },
  address: { letter: "a" },
  verbose: { letter: "v" },
  domain: { letter: "d", value: true },
  host: { letter: "H", value: true },
  subtype: { letter: "", value: true },
  "no-reverse": { letter: "R" },
  "no-fail": { letter: "f" },
};

const HELP = `    -h --help            Show this help
    -V --version         Show version
    -s --service         Publish service
    -a --address         Publish address
    -v --verbose         Enable verbose mode
    -d --domain=DOMAIN   Domain to publish service in
    -H --host=DOMAIN     Host where service resides
       --subtype=SUBTYPE An additional subtype to register this service with
    -R --no-reverse      Do not publish reverse entry with address
    -f --no-fail         Don't fail if the daemon is not available
`;

/** What the command line says of either. */
interface Manner {
  readonly verbose: boolean;
  readonly noFail: boolean;
}

/** A service as the command line has it. */
interface Wanted extends Manner {
  readonly what: "service";
  readonly name: string;
  readonly type: string;
  readonly port: number;
  readonly txt: readonly string[];
  readonly subtypes: readonly string[];
  readonly domain: string | undefined;
  readonly host: string | undefined;
}

interface WantedAddress extends Manner, Required<HostAddress> {
  readonly what: "address";
}

/**
 * Runs the command line. What Avahi says goes to standard error here, too. @returns the exit code: 1 for a wrong command line and where nothing can be announced; 0 for the rest,
 * a service that cannot be published included, as Avahi has it
 */
export async function publish(words: readonly string[], shell: Shell, machine: Machine): Promise<number> {
  const wanted = read(words, shell);
  if (typeof wanted === "number") return wanted;
  if (wanted.what === "address") return await withEngine(machine, (mdns) => announceAddress(wanted, shell, mdns));
  const service = serviceOf(wanted);
  if (typeof service === "string") {
    shell.err(`${service}\n`);
    return 0;
  }
  return await withEngine(machine, (mdns) => announce(wanted, service, shell, mdns));
}

function read(words: readonly string[], shell: Shell): Wanted | WantedAddress | number {
  const { program } = shell;
  const parsed = getopt(words, FLAGS);
  if (typeof parsed === "string") {
    shell.err(`${program}: ${parsed}\n`);
    return 1;
  }
  // Under Avahi's own name a service has to be asked for.
  const implied = program !== "avahi-publish";
  let what = program.includes("address") ? "address" : implied ? "service" : "";
  const values = new Map<string, string>();
  const subtypes: string[] = [];
  for (const { name, value } of parsed.flags) {
    if (/^(help|version|service|address)$/.test(name)) what = name;
    if (name === "subtype") subtypes.unshift(value);
    values.set(name, value);
  }
  if (what === "help") {
    const [s, a] = program.includes("address") ? ["-s", "[-a]"] : implied ? ["[-s]", "-a"] : ["-s", "-a"];
    const usage = `${program} [options]`;
    shell.out(`${usage} ${s} <name> <type> <port> [<txt ...>]\n${usage} ${a} <host-name> <address>\n\n${HELP}`);
    return 0;
  }
  if (what === "version") {
    shell.out(`${program} 0.8\n`);
    return 0;
  }
  if (what === "") {
    shell.err("No command specified.\n");
    return 1;
  }
  const manner = { verbose: values.has("verbose"), noFail: values.has("no-fail") };
  if (what === "address") {
    const [name, address, ...rest] = parsed.words;
    if (name === undefined || address === undefined || rest.length > 0) {
      shell.err("Bad number of arguments\n");
      return 1;
    }
    if (ipFamily(address) === 0 || address.includes("%")) {
      // Avahi announces whatever stood in its memory.
      shell.err(`Failed to parse address: ${address}\n`);
      return 1;
    }
    return { what, name, address, reverse: !values.has("no-reverse"), ...manner };
  }
  const [name, type, portText, ...txt] = parsed.words;
  if (name === undefined || type === undefined || portText === undefined) {
    shell.err("Bad number of arguments\n");
    return 1;
  }
  const port = strtol(portText);
  if (port === undefined || port < 0 || port > 0xffff) {
    shell.err(`Failed to parse port number: ${portText}\n`);
    return 1;
  }
  return {
    what: "service",
    name,
    type,
    port,
    txt,
    subtypes,
    // Given empty they are not given.
    domain: values.get("domain") || undefined,
    host: values.get("host") || undefined,
    ...manner,
  };
}

/** The number that C's strtol reads with base 0, of a whole text: 80, 0x50, 0120. */
function strtol(text: string): number | undefined {
  // What holds nothing is read to its end.
  if (text === "") return 0;
  const [, sign = "", digits = ""] = /^[\t-\r ]*([+-]?)(0x[0-9a-f]+|\d+)$/i.exec(text) ?? [];
  if (digits === "" || /^0\d*[89]/.test(digits)) return undefined;
  return Number(/^0\d/.test(digits) ? `0o${digits.slice(1)}` : digits) * (sign === "-" ? -1 : 1);
}

/** The service, or Avahi's sentence about what it is not. */
function serviceOf(wanted: Wanted): Service | string {
  const refused = (why: string): string => `Failed to add service: Invalid ${why}`;
  const type = serviceType(wanted.type);
  const txt = wanted.txt.map((each) => Buffer.from(each, "utf8"));
  if (instanceName(wanted.name) === undefined) return refused("service name");
  if (type === undefined) return refused("service type");
  if (wanted.domain !== undefined && domainName(wanted.domain) === undefined) return refused("domain name");
  if (wanted.host !== undefined && hostName(wanted.host) === undefined) return refused("host name");
  if (txt.some((each) => stringFault(each) !== undefined) || tooMuchTxt(txt) !== undefined) return refused("record");
  const subtypes: string[] = [];
  for (const each of wanted.subtypes) {
    const subtype = subtypeOf(each, type);
    if (subtype === undefined) return `Failed to add subtype '${each}': Invalid service subtype`;
    subtypes.push(subtype);
  }
  return {
    type,
    port: wanted.port,
    txt,
    ...(subtypes.length === 0 ? {} : { subtypes }),
    ...(wanted.domain === undefined ? {} : { domain: domainName(wanted.domain) as string }),
    ...(wanted.host === undefined ? {} : { host: hostName(wanted.host) as string }),
  };
}

/** Announces until the shell ends it; what cannot be announced is told with `what` in front, as Avahi does, and is no fault. */
async function announced(
  { verbose, noFail }: Manner,
  shell: Shell,
  mdns: Mdns,
  what: "service" | "address",
  begin: (changed: (event: PublishEvent) => void) => Pick<Published, "withdraw">,
): Promise<number> {
  if (mdns.places.length === 0 && !noFail) {
    shell.err("No network interface can be used for multicast DNS\n");
    return 1;
  }
  if (verbose) shell.err(`Server version: ${shell.program}; Host name: ${mdns.hostName}\n`);
  const ending = new Ending(shell.signal);
  let published: Pick<Published, "withdraw">;
  try {
    published = begin((event) =>
      shell.err(
        event.kind === "established"
          ? `Established under name '${event.name}'\n`
          : `Name collision, picking new name '${event.to}'.\n`,
      ),
    );
  } catch (error) {
    shell.err(`Failed to add ${what}: ${messageOf(error)}\n`);
    return 0;
  }
  await ending.reached;
  await published.withdraw();
  quitting(shell);
  return 0;
}

function announce(wanted: Wanted, service: Service, shell: Shell, mdns: Mdns): Promise<number> {
  return announced(wanted, shell, mdns, "service", (changed) =>
    mdns.publish({ name: wanted.name, services: [service] }, { changed }),
  );
}

function announceAddress(wanted: WantedAddress, shell: Shell, mdns: Mdns): Promise<number> {
  const { name, address, reverse } = wanted;
  return announced(wanted, shell, mdns, "address", (changed) => {
    if (hostName(name) === undefined) throw new InputError("", "Invalid host name");
    try {
      return mdns.publishAddress({ name, address, reverse }, { changed });
    } catch (error) {
      throw codeOf(error) === "conflict" ? new InputError("", "Local name collision") : error;
    }
  });
}
