// `trilith dns setup`: how a system's own resolvers are told to ask the agent, as files that are written, shown and taken back.
import { type Disk, systemDisk } from "../../base/disk.ts";
import { codeOf, InputError, messageOf, TrilithError } from "../../base/error.ts";
import { hostPort, ipFamily, type Net, systemNet } from "../../base/net.ts";
import { nameFromText } from "../../wire/dns/index.ts";
import { bridgesAmong, localAddresses } from "./bridges.ts";

/** What can be told to ask the agent. */
export const SETUP_TARGETS: readonly SetupTarget[] = ["docker", "resolved", "dnsmasq"];
export type SetupTarget = "docker" | "resolved" | "dnsmasq";

/** What to set up, and where. */
export interface SetupOptions {
  readonly target: SetupTarget;
  /** The agent's domain: "consul". */
  readonly domain: string;
  /** Where the agent answers: for `docker` the bridge's address (found out unless told), else the host's own, default 127.0.0.1. */
  readonly address?: string;
  /** The agent's DNS port, default 8600; containers ask port 53 whatever is said here. */
  readonly port: number;
  /** Put before every path; "" = the system itself. */
  readonly root: string;
}

/** The one file that a setup is about. */
export interface SetupFile {
  readonly path: string;
  /** Undefined = there is no such file. */
  readonly before: Uint8Array | undefined;
  readonly after: Uint8Array | undefined;
}

/** What would be done. */
export interface SetupPlan {
  readonly file: SetupFile;
  /** Where the former content is kept for `--undo`. */
  readonly backup: string;
  /** What people have to do themselves, one command or sentence each: no daemon is restarted here. */
  readonly next: readonly string[];
  /** What is worth knowing before it is applied. */
  readonly notes: readonly string[];
}

interface Machine {
  readonly disk: Pick<Disk, "readBytes" | "readText" | "info" | "replace" | "remove" | "makeFolder">;
  readonly net: Pick<Net, "interfaces">;
}

const SYSTEM: Machine = { disk: systemDisk, net: systemNet };

/** Written beside the file that was changed: what was there, and what was made of it. */
interface Backup {
  readonly before: string | null;
  readonly mode: number | null;
  readonly after: string;
}

const PATHS: Readonly<Record<SetupTarget, string>> = {
  docker: "/etc/docker/daemon.json",
  resolved: "/etc/systemd/resolved.conf.d/trilith.conf",
  dnsmasq: "/etc/dnsmasq.d/trilith.conf",
};
const RESTART: Readonly<Record<SetupTarget, string>> = {
  docker: "systemctl restart docker",
  resolved: "systemctl restart systemd-resolved",
  dnsmasq: "systemctl restart dnsmasq",
};
/** A drop-in's name must end in ".conf" to be read, so a backup's does not. */
const BACKUP_SUFFIX = ".trilith-undo";
const DOCKER_ADDRESS = "172.17.0.1";

/** @throws InputError for a word that is none of `SETUP_TARGETS` */
export function setupTarget(text: string): SetupTarget {
  const target = SETUP_TARGETS.find((one) => one === text);
  if (target !== undefined) return target;
  throw new InputError("", `"${text}" cannot be set up; known are ${SETUP_TARGETS.join(", ")}`);
}

/** What a setup would write. Reads only. @throws InputError for a file that cannot be merged and for what is no address or domain */
export async function planSetup(options: SetupOptions, machine: Machine = SYSTEM): Promise<SetupPlan> {
  const { target, root, port } = options;
  const domain = domainOf(options.domain);
  const path = `${root}${PATHS[target]}`;
  const before = await bytesAt(path, machine.disk);
  const backup = `${path}${BACKUP_SUFFIX}`;
  // Set up before: the plan starts from what was there before that.
  const kept = await readBackup(backup, machine.disk);
  if (kept !== undefined && !sameBytes(before, fromBase64(kept.after)))
    throw new TrilithError(
      "conflict",
      `${path} was changed since it was set up: take out by hand what was added, then remove ${backup}`,
    );
  const original = kept === undefined ? before : kept.before === null ? undefined : fromBase64(kept.before);
  if (target === "docker") {
    const text = original === undefined ? "" : Buffer.from(original).toString("utf8");
    const config = parseDaemonJson(text, path);
    const address = addressOf(options.address ?? (await dockerAddress(config, machine)));
    const { after, former } = mergedDaemonJson(config, text, address, `service.${domain}`);
    return {
      file: { path, before, after: Buffer.from(after) },
      backup,
      next: [
        `trilith agent --dns-bridge ${former.map((server) => `--recursor ${server} `).join("")}…   (answers at ${hostPort(address, 53)})`,
        RESTART.docker,
      ],
      notes: [
        `containers ask ${address} for every name, and "web" means "web.service.${domain}" to them`,
        ...(former.length === 0
          ? []
          : [
              `Docker's former servers (${former.join(", ")}) are the agent's to ask now: several servers in a container would be asked at once, and the one that knows nothing of ${domain} could be first`,
            ]),
      ],
    };
  }
  const address = addressOf(options.address ?? "127.0.0.1");
  const lines =
    target === "resolved"
      ? [
          `# Written by "trilith dns setup resolved"; "--undo" takes it back.`,
          "[Resolve]",
          `DNS=${hostPort(address, port)}`,
          `Domains=~${domain}`,
        ]
      : [
          `# Written by "trilith dns setup dnsmasq"; "--undo" takes it back.`,
          `server=/${domain}/${address}#${port}`,
          `rebind-domain-ok=/${domain}/`,
        ];
  return {
    file: { path, before, after: Buffer.from(`${lines.join("\n")}\n`) },
    backup,
    next: [RESTART[target]],
    notes: [
      `this host asks ${hostPort(address, port)} for names below "${domain}", and nobody else's names go there`,
      ...(target === "resolved" ? ["needs systemd 246 or newer for a port other than 53"] : []),
    ],
  };
}

/** Writes what was planned, the former content beside it first. False = it is so already. */
export async function applySetup(plan: SetupPlan, machine: Machine = SYSTEM): Promise<boolean> {
  const { disk } = machine;
  const { path, before, after } = plan.file;
  if (after === undefined || sameBytes(before, after)) return false;
  const folder = path.slice(0, path.lastIndexOf("/"));
  await disk.makeFolder(folder);
  const kept = await readBackup(plan.backup, disk);
  const mode = (await disk.info(path))?.mode ?? null;
  const backup: Backup = {
    before: kept === undefined ? (before === undefined ? null : toBase64(before)) : kept.before,
    mode: kept === undefined ? mode : kept.mode,
    after: toBase64(after),
  };
  await disk.replace(plan.backup, `${JSON.stringify(backup)}\n`, mode ?? 0o644);
  await disk.replace(path, after, mode ?? 0o644);
  return true;
}

/** What an undo would restore. Reads only. @throws TrilithError `not-found` where nothing was set up, `conflict` where the file was changed since */
export async function planUndo(
  { target, root }: Pick<SetupOptions, "target" | "root">,
  machine: Machine = SYSTEM,
): Promise<SetupPlan> {
  const path = `${root}${PATHS[target]}`;
  const backup = `${path}${BACKUP_SUFFIX}`;
  const kept = await readBackup(backup, machine.disk);
  if (kept === undefined) throw new TrilithError("not-found", `${backup}: nothing is there, so nothing was set up`);
  const before = await bytesAt(path, machine.disk);
  const original = kept.before === null ? undefined : fromBase64(kept.before);
  if (!sameBytes(before, fromBase64(kept.after)) && !sameBytes(before, original))
    throw new TrilithError(
      "conflict",
      `${path} was changed since it was set up: take out by hand what was added, then remove ${backup}`,
    );
  return { file: { path, before, after: original }, backup, next: [RESTART[target]], notes: [] };
}

/** Restores what was there, byte for byte, and forgets about it. */
export async function applyUndo(plan: SetupPlan, machine: Machine = SYSTEM): Promise<void> {
  const { disk } = machine;
  const { path, after } = plan.file;
  const kept = await readBackup(plan.backup, disk);
  if (after === undefined) await disk.remove(path);
  else await disk.replace(path, after, kept?.mode ?? 0o644);
  await disk.remove(plan.backup);
}

const textOf = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString("utf8");

/** Lines that go and lines that come; those at both ends that stay are left out. */
function difference(before: string, after: string): string {
  const old = before === "" ? [] : before.replace(/\n$/, "").split("\n");
  const now = after === "" ? [] : after.replace(/\n$/, "").split("\n");
  let head = 0;
  while (head < old.length && head < now.length && old[head] === now[head]) head++;
  let tail = 0;
  while (
    tail < old.length - head &&
    tail < now.length - head &&
    old[old.length - 1 - tail] === now[now.length - 1 - tail]
  )
    tail++;
  return [
    ...old.slice(head, old.length - tail).map((line) => `- ${line}\n`),
    ...now.slice(head, now.length - tail).map((line) => `+ ${line}\n`),
  ].join("");
}

/** A plan for people: what changes, what to know, and what to run then. */
export function planText({ file, next, notes }: SetupPlan, done: boolean, undo: boolean): string {
  const { path, before, after } = file;
  const changes = difference(textOf(before), textOf(after));
  const what =
    changes === "" && before !== undefined
      ? `${path} is so already\n`
      : after === undefined
        ? `${path} ${done ? "was" : "would be"} removed\n`
        : `${path} ${done ? "was" : "would be"} ${undo ? "restored" : before === undefined ? "made" : "changed"}:\n${changes}`;
  const lines = [...notes.map((note) => `# ${note}`), "then run:", ...next.map((line) => `  ${line}`)];
  return `${what}${lines.map((line) => `${line}\n`).join("")}${done ? "" : 'nothing was written: "--apply" does it\n'}`;
}

async function bytesAt(path: string, disk: Machine["disk"]): Promise<Uint8Array | undefined> {
  try {
    return await disk.readBytes(path);
  } catch (error) {
    if (codeOf(error) === "not-found") return undefined;
    throw new TrilithError(codeOf(error), `${path}: ${messageOf(error)}`, error);
  }
}

async function readBackup(path: string, disk: Machine["disk"]): Promise<Backup | undefined> {
  const bytes = await bytesAt(path, disk);
  if (bytes === undefined) return undefined;
  try {
    const { before, mode, after } = JSON.parse(Buffer.from(bytes).toString("utf8")) as Backup;
    if (typeof after === "string" && (before === null || typeof before === "string")) return { before, mode, after };
  } catch {
    // Told below, as for anything else that is no backup.
  }
  throw new TrilithError("damaged", `${path} is not what "trilith dns setup" wrote`);
}

/** @throws InputError with the place of the fault */
function parseDaemonJson(text: string, path: string): Record<string, unknown> {
  if (text.trim() === "") return {};
  let config: unknown;
  try {
    config = JSON.parse(text);
  } catch (error) {
    throw new InputError(path, `is not JSON, so nothing can be added to it: ${messageOf(error)}`, error);
  }
  if (typeof config === "object" && config !== null && !Array.isArray(config)) return config as Record<string, unknown>;
  throw new InputError(path, "holds no JSON object, so nothing can be added to it");
}

const texts = (value: unknown): string[] =>
  Array.isArray(value) ? value.filter((item): item is string => typeof item === "string") : [];

/** daemon.json with the agent as the only server and its search domain first; everything else as it was. */
function mergedDaemonJson(
  config: Readonly<Record<string, unknown>>,
  text: string,
  address: string,
  search: string,
): { readonly after: string; readonly former: readonly string[] } {
  const former = texts(config["dns"]).filter((server) => server !== address);
  const merged = Object.entries(config).filter(([key]) => key !== "dns" && key !== "dns-search");
  const domains = [search, ...texts(config["dns-search"]).filter((domain) => domain !== search)];
  const indent = /\n([ \t]+)"/.exec(text)?.[1] ?? "  ";
  // From entries, since a key may be called __proto__.
  const after = `${JSON.stringify(Object.fromEntries([...merged, ["dns", [address]], ["dns-search", domains]]), null, indent)}\n`;
  return { after, former };
}

/** Where containers reach this host: `bip` of daemon.json, else docker0's address, else Docker's default. */
async function dockerAddress(config: Readonly<Record<string, unknown>>, { net, disk }: Machine): Promise<string> {
  const bip = config["bip"];
  if (typeof bip === "string" && bip !== "") return bip.split("/")[0] as string;
  const found = bridgesAmong(await localAddresses(net, disk, "/proc/net"), ["docker0"]);
  return found.find(({ address }) => ipFamily(address) === 4)?.address ?? DOCKER_ADDRESS;
}

function addressOf(text: string): string {
  if (ipFamily(text) !== 0) return text;
  throw new InputError("--address", `"${text}" is not an IP address`);
}

function domainOf(text: string): string {
  const domain = text.toLowerCase().replace(/^\.+|\.+$/g, "");
  if (domain !== "" && /^[a-z0-9_.-]+$/.test(domain)) {
    nameFromText(domain);
    return domain;
  }
  throw new InputError("--domain", `"${text}" is not a DNS domain such as "consul"`);
}

function sameBytes(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return Buffer.compare(a, b) === 0;
}

const toBase64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64");
const fromBase64 = (text: string): Uint8Array => Buffer.from(text, "base64");
