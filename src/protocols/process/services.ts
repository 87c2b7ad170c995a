// Processes that say what they are and the sockets they listen on → registrations: one for each port, whoever shares it. Pure.
import type { Registration } from "../../model/instance.ts";
import { buildCheck, type CheckOptions } from "../../wire/service-check.ts";
import { combineTags, labelsOf, nameComplaint, serviceMetadata, wordsOf } from "../../wire/service-env.ts";
import { isLoopbackHost, mergePorts, type Socket } from "./ports.ts";

/** A process whose environment names a service. */
export interface Carrier {
  readonly pid: number;
  readonly startTicks: number;
  /** The name the kernel shows. */
  readonly program: string;
  /** The systemd unit; "" = none. */
  readonly unit: string;
  /** SERVICE_* entries. */
  readonly env: readonly string[];
  /** True where it lives in another network namespace, of which nothing is seen here. */
  readonly elsewhere: boolean;
  /** The inodes of the sockets that it holds. */
  readonly sockets: ReadonlySet<string>;
}

/** A registration and the process it belongs to. */
export interface FoundService {
  readonly pid: number;
  readonly startTicks: number;
  readonly protocol: "tcp" | "udp";
  readonly port: number;
  readonly registration: Registration;
}

export interface FoundServices {
  readonly found: readonly FoundService[];
  readonly complaints: readonly { readonly about: string; readonly text: string }[];
}

/** One port of one process (or of several that share it). */
interface Listening extends Omit<Socket, "inode"> {
  readonly key: string;
}

const LONGEST_NAME = 255;

/** "pid:start" with a word in front that tells these from what `trilith run` states. */
const IDENTITY = "environ";

/** The inverse of the foreign IDs given here. */
export function carrierOfForeignId(
  foreignId: string,
): { readonly pid: number; readonly startTicks: number } | undefined {
  const match = /^environ:(\d+):(\d+):\d+\/(?:tcp|udp)$/.exec(foreignId);
  return match === null ? undefined : { pid: Number(match[1]), startTicks: Number(match[2]) };
}

/** `pid:start` → the port ("tcp:80") that bears the plain name, kept over calls so that names stay while other ports come and go. */
export type PlainNames = Map<string, string>;

/**
 * The oldest process of those that share a port has it: a server's workers hold what their master opened. Sockets of one port are one
 * instance where they share a process, an address (SO_REUSEPORT), or where one of them takes all addresses.
 */
export function servicesOf(
  carriers: Iterable<Carrier>,
  listening: ReadonlyMap<string, Socket>,
  ephemeral: readonly [low: number, high: number],
  plain: PlainNames,
  options: CheckOptions,
): FoundServices {
  const found: FoundService[] = [];
  const complaints: { about: string; text: string }[] = [];
  const taken: {
    readonly key: string;
    readonly name: string;
    readonly inodes: Set<string>;
    readonly hosts: Set<string>;
  }[] = [];
  const ids = new Set<string>();
  const sorted = [...carriers].sort((a, b) => a.startTicks - b.startTicks || a.pid - b.pid);
  for (const carrier of sorted) {
    const who = `process ${carrier.pid} (${carrier.program}${carrier.unit === "" ? "" : `, unit ${carrier.unit}`})`;
    const identity = `${carrier.pid}:${carrier.startTicks}`;
    const own = [...carrier.sockets].flatMap((inode) => listening.get(inode) ?? []);
    const wanted = ports(
      own,
      ephemeral,
      (port) => serviceMetadata(carrier.env, {}, String(port)).fromPort.size > 0,
    ).filter(({ port }) => metadata(carrier, port) !== undefined);
    const bearer = plainPort(wanted, plain.get(identity));
    if (bearer !== undefined) plain.set(identity, bearer);
    for (const { key, protocol, port, host } of wanted) {
      const { values, fromPort } = metadata(carrier, port) as NonNullable<ReturnType<typeof metadata>>;
      const about = `${who}, port ${port}/${protocol}`;
      const base = values.get("name") as string;
      const name = fromPort.has("name") || key === bearer ? base : `${base}-${port}`;
      if (name.length > LONGEST_NAME) {
        complaints.push({
          about,
          text: `not registered: its name has ${name.length} characters, ${LONGEST_NAME} are allowed`,
        });
        continue;
      }
      const sockets = own.filter((socket) => socket.protocol === protocol && socket.port === port);
      const shared = taken.find(
        (one) =>
          one.key === key &&
          one.name === base &&
          (one.hosts.has("") ||
            sockets.some((socket) => socket.host === "" || one.hosts.has(socket.host) || one.inodes.has(socket.inode))),
      );
      const group = shared ?? { key, name: base, inodes: new Set<string>(), hosts: new Set<string>() };
      for (const socket of sockets) {
        group.inodes.add(socket.inode);
        group.hosts.add(socket.host);
      }
      if (shared !== undefined) continue;
      taken.push(group);
      const id = values.get("id") || `${base}:${carrier.pid}:${port}${protocol === "udp" ? ":udp" : ""}`;
      if (ids.has(id)) {
        complaints.push({
          about,
          text: `not registered: another port has the ID "${id}" already; leave SERVICE_ID out, or give each its own by SERVICE_${port}_ID`,
        });
        continue;
      }
      ids.add(id);
      const fault = nameComplaint(name);
      if (fault !== undefined) complaints.push({ about, text: fault });
      const attributes = new Map(values);
      for (const key of ["name", "id", "tags"]) attributes.delete(key);
      const check = buildCheck(
        { containerId: "", exposedPort: String(port), address: host, port, attributes },
        options,
        (text) => complaints.push({ about, text }),
      );
      for (const key of attributes.keys()) if (key.startsWith("check_")) attributes.delete(key);
      found.push({
        pid: carrier.pid,
        startTicks: carrier.startTicks,
        protocol,
        port,
        registration: {
          id,
          name,
          tags: combineTags([values.get("tags") ?? "", protocol === "udp" ? "udp" : ""], false),
          labels: labelsOf(attributes, (text) => complaints.push({ about, text })),
          address: host,
          port,
          // What listens on loopback only stays on its host.
          ...(isLoopbackHost(host) ? { addresses: [{ host, port, reach: "loopback" }] } : {}),
          checks: check === undefined ? [] : [check],
          foreignId: `${IDENTITY}:${identity}:${port}/${protocol}`,
          text: about,
          words: wordsOf(carrier.env, {}, String(port)),
        },
      });
    }
  }
  return { found, complaints };
}

/** What a carrier says about a port; undefined where it names no service for it, or wants it ignored. */
function metadata(carrier: Carrier, port: number): ReturnType<typeof serviceMetadata> | undefined {
  const said = serviceMetadata(carrier.env, {}, String(port));
  return (said.values.get("name") ?? "") === "" || (said.values.get("ignore") ?? "") !== "" ? undefined : said;
}

/** One entry for each port; UDP ports that the system may have picked for a client count where TCP has the same or they are spoken of. */
function ports(
  sockets: readonly Socket[],
  [low, high]: readonly [low: number, high: number],
  spokenOf: (port: number) => boolean,
): Listening[] {
  const tcp = new Set(sockets.filter(({ protocol }) => protocol === "tcp").map(({ port }) => port));
  return mergePorts(
    sockets.filter(
      ({ protocol, port }) => protocol === "tcp" || tcp.has(port) || port < low || port > high || spokenOf(port),
    ),
  ).map((port) => ({ ...port, key: `${port.protocol}:${port.port}` }));
}

/** The port that bears the plain name: the one that had it, unless only this host reaches it and others can be reached from outside. */
function plainPort(all: readonly Listening[], before: string | undefined): string | undefined {
  const outside = all.filter(({ host }) => !isLoopbackHost(host));
  const fit = outside.length > 0 ? outside : all;
  return (fit.find(({ key }) => key === before) ?? fit[0])?.key;
}
