// What is right for each of an agent's settings: programs without types say what they like, and what is not understood is not passed over.
import {
  anything,
  callback,
  labels,
  milliseconds,
  mustFit,
  objectWith,
  oneOf,
  type Rule,
  type Rules,
  text,
  texts,
  wholeNumber,
} from "../base/options.ts";
import type { Settings } from "../contracts/settings.ts";

const flag: Rule = ["true or false", (value) => typeof value === "boolean"];
const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const object: Rule = ["an object", isObject];
const port = wholeNumber(0, 65_535);
/** Those that may be none at all. */
const interval: Rule = [
  "milliseconds, a number of 0 or more",
  (value) => typeof value === "number" && value >= 0 && value <= Number.MAX_SAFE_INTEGER,
];
const lists: Rule = [
  'an object of lists such as { dc2: ["http://10.0.0.1:8500"] }',
  (value) => isObject(value) && Object.values(value).every((each) => texts[1](each)),
];

const SETTINGS: Rules<Settings> = {
  node: text,
  nodeId: text,
  datacenter: text,
  domain: text,
  dataDir: text,
  dev: flag,
  compat: oneOf("none", "consul"),
  storage: oneOf("memory", "lmdb", "etcd"),
  etcd: object,
  join: object,
  peers: object,
  datacenters: lists,
  clientAddress: text,
  bindAddress: text,
  advertiseAddress: text,
  nodeLabels: labels,
  httpPort: ["a port from 0 to 65535, or -1 for none", (value) => wholeNumber(-1, 65_535)[1](value)],
  scripts: object,
  checkTls: object,
  antiEntropyMs: milliseconds,
  checkUpdateMs: interval,
  leaveOnTerm: flag,
  guard: object,
  magic: object,
  log: object,
  protocols: object,
  ignored: texts,
  untilRestart: labels,
};

const GUARD: Rules<Omit<Settings["guard"], "perService">> = {
  dropShare: ["a share from 0 to 1", (value) => typeof value === "number" && value >= 0 && value <= 1],
  minInstances: wholeNumber(0, Number.MAX_SAFE_INTEGER),
  windowMs: interval,
  holdMs: interval,
  panicPercent: ["a percentage from 0 to 100", (value) => typeof value === "number" && value >= 0 && value <= 100],
};

/** Those that hold others. */
const INNER: {
  readonly [Key in "etcd" | "join" | "peers" | "scripts" | "checkTls" | "guard" | "magic" | "log"]: Rules<
    NonNullable<Settings[Key]>
  >;
} = {
  etcd: {
    endpoints: texts,
    prefix: text,
    livenessMs: milliseconds,
    username: text,
    password: text,
    caFile: text,
    certFile: text,
    keyFile: text,
  },
  join: { servers: texts, livenessMs: milliseconds, token: text },
  peers: { find: oneOf("tailnet", "lan", "list"), hosts: texts, port, bind: text, key: text, tailscaled: text },
  scripts: { fromApi: flag, fromFiles: flag },
  checkTls: { caFile: text, certFile: text, keyFile: text, serverName: text },
  guard: { ...GUARD, perService: object },
  magic: { v4: text, v6: text },
  log: { level: oneOf("trace", "debug", "info", "warn", "error"), format: oneOf("text", "json") },
};

/** @throws InputError for a setting that there is not (with the one that was likely meant), or that cannot be so */
export function mustFitSettings(given: Partial<Settings>): void {
  mustFit("createTrilith", given, SETTINGS);
  for (const [name, rules] of Object.entries(INNER))
    mustFit(`createTrilith: ${name}`, given[name as keyof Settings], rules as Rules<object>);
  for (const [service, own] of Object.entries(given.guard?.perService ?? {}))
    mustFit(`createTrilith: guard.perService.${service}`, own, GUARD);
}

/** What is told: a setting that is undefined is as good as absent. */
export function toldOf<Told extends object>(given: Told): Told {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as Told;
}

/** The pieces of a machine, by name; each is looked at no further. @throws InputError */
export function mustFitMachine<Options>(options: Options): void {
  const rules: Readonly<Record<string, Rule>> = {
    log: objectWith("info", "warn", "error", "part"),
    ...{ clock: anything, random: anything, disk: anything, net: anything, http: anything, processes: anything },
    reread: callback,
  };
  mustFit("createTrilith, the second argument", options, rules);
}
