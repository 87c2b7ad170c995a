// Which pairs of entry and exit are not carried, by design and with the reason; how what an exit shows is held against that; and the table for users.
import type { Entry, Exception, Exit, Seen } from "./model.ts";

const CONNECTING = [
  "`trilith hook -- curl`",
  "`node --import trilith/hook`",
  "`NAME.connect.consul`, any program",
  "`trilith proxy`",
  "the library's `connect`",
  "undici's `Agent` of `trilith/undici`",
  "gRPC's name resolver",
];

export const EXCEPTIONS: readonly Exception[] = [
  {
    exits: ["DNS: A"],
    which: "what has an IPv6 address only",
    reason: "an A record has no room for it",
    but: ({ address }) => address.includes(":"),
  },
  {
    exits: ["DNS: AAAA, asked over IPv6"],
    which: "what has no IPv6 address",
    reason: "an AAAA record has no room for others",
    but: ({ ipv6 }) => ipv6 === undefined,
  },
  {
    exits: ["DNS: SRV of a tag (`_NAME._TAG`)"],
    which: "what came without the tag",
    reason: "the dialect that it came by told none",
    but: ({ tags }) => tags.length === 0,
  },
  {
    exits: ["`/proxy/backends`"],
    which: "all but back ends",
    reason: "the list is for a front end of theirs",
    but: ({ service }) => service !== "backend",
  },
  {
    exits: CONNECTING,
    which: "what has no port",
    reason: "a hosts file knows no port to connect to",
    but: ({ port }) => port === undefined,
  },
  {
    exits: ["the LAN: `avahi-browse`"],
    which: "others' services",
    reason: "a host announces to the LAN what is its own; others' is theirs to announce",
    but: ({ of, service }) => of === "others" && service !== "avahipublish",
  },
  {
    exits: ["another host's agent, without a server (`--peers lan`)"],
    which: "others' services, but back ends, whose list is this host's own",
    reason: "each host speaks for itself alone; what it has heard of is not shown on",
    but: ({ of, service }) => of === "others" && !["peered", "backend"].includes(service),
  },
  {
    exits: ["the tailnet: `md list`"],
    which: "others' services",
    reason: "a host tells the tailnet what is its own; others' is theirs to tell",
    but: ({ of, address }) => of === "others" && !address.startsWith("100.64."),
  },
  {
    exits: ["server sets in ZooKeeper"],
    which: "what has no port",
    reason: "a member of a server set has a port",
    but: ({ port }) => port === undefined,
  },
  {
    exits: ["Registrator's keys in etcd (`trilith registrator`)"],
    which: "all but containers",
    reason: "Registrator writes containers",
    but: ({ service }) => !/^(docker|regetcd)/.test(service),
  },
];

/** The reason why an entry is not shown; undefined = it is. */
export function excepted(exit: Exit, entry: Entry): string | undefined {
  return EXCEPTIONS.find(({ exits, but }) => exits.includes(exit.title) && but(entry))?.reason;
}

const sorted = (tags: readonly string[] | undefined): string | undefined => tags && [...tags].sort().join();

/** What of a service stands out: undefined where it is shown as it should be. */
function fault(wanted: Seen, seen: Seen): string | undefined {
  for (const key of ["address", "port"] as const)
    if (wanted[key] !== seen[key]) return `${key} ${seen[key]} instead of ${wanted[key]}`;
  if (sorted(wanted.tags) !== sorted(seen.tags)) return `tags ${seen.tags} instead of ${wanted.tags}`;
  for (const [key, value] of Object.entries(wanted.labels ?? {}))
    if (seen.labels?.[key] !== value) return `label ${key}: ${seen.labels?.[key]} instead of ${value}`;
  return undefined;
}

/** Everything that is wrong with what an exit shows, when exactly these entries are to be found: each once, as it is, and nothing besides. */
export function faults(exit: Exit, entries: readonly Entry[], shown: readonly Seen[]): string[] {
  const found: string[] = [];
  const wanted = new Map(
    entries.filter((entry) => excepted(exit, entry) === undefined).map((one) => [one.service, one]),
  );
  for (const [service, entry] of wanted) {
    const seen = shown.filter((one) => one.service === service);
    if (seen.length !== 1) found.push(`${service}: ${seen.length} times ${JSON.stringify(seen)}`);
    const wrong = seen[0] && fault(exit.as(entry), seen[0]);
    if (wrong !== undefined) found.push(`${service}: ${wrong}`);
  }
  for (const one of shown) if (!wanted.has(one.service)) found.push(`${one.service} is shown: ${JSON.stringify(one)}`);
  return found;
}

/** The page for users: the ways in, the ways out, and what is not carried. */
export function tableOf(entries: readonly Entry[], exits: readonly Exit[]): string {
  const row = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  const ways = entries.map((entry) =>
    row([
      entry.title,
      entry.of === "this host" ? "this host's own" : "others'",
      entry.health === undefined ? "no" : "yes",
    ]),
  );
  const outs = exits.map((exit) => {
    const not = EXCEPTIONS.filter(({ exits: of }) => of.includes(exit.title)).map(
      ({ which, reason }) => `${which}: ${reason}`,
    );
    return row([exit.title, exit.carries, not.join(". ") || "–"]);
  });
  return `# Everything through everything

What enters through any dialect is found through every other. \`test/peers/everything.test.ts\` holds this page to the program, with real peers: each service below is
found through each way out exactly once, as far as the dialect has words for it; while it is critical it is not, but where that stands beside it; when it leaves it is gone everywhere; and nothing comes back in
by the way it went out. Where a way out does not carry a service, the reason stands beside it; there are no other cases.

"This host's own" is what the agent's host says at first hand; others' services are what it has heard of.

## Ways in

${row(["a service comes by", "it is", "health"])}
${row(["---", "---", "---"])}
${ways.join("\n")}

## Ways out

${row(["it is found through", "with", "not carried"])}
${row(["---", "---", "---"])}
${outs.join("\n")}
`;
}
