// The ports that a process and its descendants listen on, from /proc: socket tables of their network namespaces matched with their open files.
import type { Processes } from "../../base/process.ts";

/** A listening socket, one per port and protocol: the widest address wins. */
export interface ListeningPort {
  readonly protocol: "tcp" | "udp";
  readonly port: number;
  /** "" = all addresses of the host. */
  readonly host: string;
}

export interface Socket extends ListeningPort {
  readonly inode: string;
}

const LITTLE_ENDIAN = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;
const TCP_LISTEN = "0A";
const UDP_UNCONNECTED = "07";

/** The address of a socket table: 32-bit words in the machine's own byte order [proc_net_tcp]. */
function addressOf(hex: string): string {
  const bytes: number[] = [];
  for (let word = 0; word < hex.length; word += 8) {
    const four = [0, 2, 4, 6].map((i) => Number.parseInt(hex.slice(word + i, word + i + 2), 16));
    bytes.push(...(LITTLE_ENDIAN ? four.reverse() : four));
  }
  const zeros = bytes.every((byte) => byte === 0);
  if (zeros) return "";
  if (bytes.length === 4) return bytes.join(".");
  const mapped = bytes.slice(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff && bytes[11] === 0xff;
  if (mapped) {
    const v4 = bytes.slice(12);
    return v4.every((byte) => byte === 0) ? "" : v4.join(".");
  }
  const groups = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i]! << 8) | bytes[2 * i + 1]!).toString(16));
  // The URL parser writes IPv6 addresses in their shortest form [RFC5952].
  return new URL(`http://[${groups.join(":")}]/`).hostname.slice(1, -1);
}

/** Listening TCP sockets, or UDP sockets bound to a port but to no peer, of one of /proc's socket tables. */
export function listeningSockets(table: string, protocol: "tcp" | "udp"): Socket[] {
  const wanted = protocol === "tcp" ? TCP_LISTEN : UDP_UNCONNECTED;
  const sockets: Socket[] = [];
  for (const line of table.split("\n").slice(1)) {
    const [, local = "", remote = "", state, , , , , , inode = "0"] = line.trim().split(/\s+/);
    if (state !== wanted || inode === "0" || !/:0000$/.test(remote)) continue;
    const [hex = "", portHex = ""] = local.split(":");
    if (!/^([0-9A-F]{8}|[0-9A-F]{32})$/.test(hex)) continue;
    const port = Number.parseInt(portHex, 16);
    if (port > 0) sockets.push({ protocol, port, host: addressOf(hex), inode });
  }
  return sockets;
}

/** True for addresses that only this host reaches: 127.0.0.0/8 and ::1. */
export function isLoopbackHost(host: string): boolean {
  return host.startsWith("127.") || host === "::1";
}

const width = (host: string): number => (host === "" ? 2 : isLoopbackHost(host) ? 0 : 1);

/** One entry per port and protocol, TCP first, then by number. Of several addresses the widest stays. */
export function mergePorts(sockets: Iterable<ListeningPort>): ListeningPort[] {
  const merged = new Map<string, ListeningPort>();
  for (const { protocol, port, host } of sockets) {
    const key = `${protocol}:${port}`;
    const before = merged.get(key);
    const better =
      before === undefined ||
      width(host) > width(before.host) ||
      (width(host) === width(before.host) && host < before.host);
    if (better) merged.set(key, { protocol, port, host });
  }
  return [...merged.values()].sort((a, b) => a.protocol.localeCompare(b.protocol) || a.port - b.port);
}

/** A process's parent and start, from /proc/<pid>/stat; undefined where it is gone or only waits to be collected (a zombie). */
export async function liveStat(
  processes: Pick<Processes, "proc">,
  pid: number,
): Promise<
  | { readonly parent: number; readonly group: number; readonly foreground: number; readonly startTicks: number }
  | undefined
> {
  const text = await processes.proc(`${pid}/stat`);
  return text === undefined ? undefined : parseLiveStat(text);
}

function parseLiveStat(text: string): Awaited<ReturnType<typeof liveStat>> {
  // The command in field 2 may hold blanks and parentheses [proc(5)].
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [state = "Z", parent, group, , , foreground] = fields;
  if (state === "Z" || state === "X") return undefined;
  return {
    parent: Number(parent),
    group: Number(group),
    foreground: Number(foreground),
    startTicks: Number(fields[19]),
  };
}

/** True while this very process is there. `start` 0: where the system tells no start times, the number alone has to do. */
export async function lives(
  processes: Pick<Processes, "proc" | "exists">,
  pid: number,
  start: number,
): Promise<boolean> {
  if (start === 0) return processes.exists(pid);
  const text = await processes.proc(`${pid}/stat`);
  // Who is there and cannot be looked at is not gone: perhaps there are no descriptors left to look with.
  if (text === undefined) return processes.exists(pid);
  return parseLiveStat(text)?.startTicks === start;
}

/** The ports that the system picks for clients. */
export async function ephemeralRange(
  processes: Pick<Processes, "proc">,
): Promise<readonly [low: number, high: number]> {
  const text = await processes.proc("sys/net/ipv4/ip_local_port_range");
  const [low = Number.NaN, high = Number.NaN] = (text ?? "").trim().split(/\s+/).map(Number);
  return Number.isFinite(low) && Number.isFinite(high) ? [low, high] : [32_768, 60_999];
}

/** So many looks in a row may rely on the family holding the same sockets. */
const SKIPS = 4;

type ProcDoor = Pick<Processes, "proc" | "procList" | "procLink">;

/** Looks at one process and its descendants, again and again; remembers descendants that lost their parent. */
export class PortFinder {
  private readonly processes: ProcDoor;
  private readonly root: number;
  /** pid → start, of everything seen below the root. */
  private family = new Map<number, number>();
  private ephemeral: readonly [low: number, high: number] | undefined;
  private unseen = false;
  private held = "";
  private skipped = 0;
  private last: ListeningPort[] = [];

  constructor(processes: ProcDoor, root: number) {
    this.processes = processes;
    this.root = root;
  }

  /** True where the last look could not see the files of some of the processes (they run as somebody else). */
  get hidden(): boolean {
    return this.unseen;
  }

  /**
   * The ports at this moment. Empty where the process is gone. Without `thorough` the kernel's socket tables, which are dear to read, are
   * left alone for a few times while the family holds the same sockets.
   */
  async look(thorough = true): Promise<ListeningPort[]> {
    const pids = await this.members();
    this.unseen = false;
    const sockets = new Map<number, string[]>();
    for (const pid of pids) {
      const files = await this.processes.procList(`${pid}/fd`);
      if (files.length === 0) this.unseen = true;
      const links = await Promise.all(files.map((file) => this.processes.procLink(`${pid}/fd/${file}`)));
      sockets.set(
        pid,
        links.flatMap((link) => (link?.startsWith("socket:[") ? [link.slice(8, -1)] : [])),
      );
    }
    const held = JSON.stringify([...sockets]);
    if (!thorough && held === this.held && this.skipped < SKIPS) {
      this.skipped++;
      return this.last;
    }
    this.held = held;
    this.skipped = 0;
    const namespaces = new Map<string, number[]>();
    for (const pid of pids) {
      if ((sockets.get(pid) as string[]).length === 0) continue;
      const namespace = (await this.processes.procLink(`${pid}/ns/net`)) ?? "";
      const members = namespaces.get(namespace);
      if (members === undefined) namespaces.set(namespace, [pid]);
      else members.push(pid);
    }
    const found: ListeningPort[] = [];
    for (const members of namespaces.values()) {
      const listening = new Map((await this.listening(members[0] as number)).map((socket) => [socket.inode, socket]));
      for (const pid of members)
        for (const inode of sockets.get(pid) as string[]) {
          const socket = listening.get(inode);
          if (socket !== undefined) found.push(socket);
        }
    }
    const tcp = new Set(found.filter(({ protocol }) => protocol === "tcp").map(({ port }) => port));
    this.ephemeral ??= await ephemeralRange(this.processes);
    const range = this.ephemeral;
    // A client's UDP socket on a port that the system picked looks like a server's; servers choose theirs, or share TCP's.
    this.last = mergePorts(
      found.filter(({ protocol, port }) => protocol === "tcp" || tcp.has(port) || port < range[0] || port > range[1]),
    );
    return this.last;
  }

  /** Everything that listens in the network namespace of the root, whoever it belongs to. */
  async everybody(): Promise<ListeningPort[]> {
    return mergePorts(await this.listening(this.root));
  }

  /** The listening sockets in the network namespace of a process. */
  private async listening(pid: number): Promise<Socket[]> {
    const sockets: Socket[] = [];
    for (const [file, protocol] of [
      ["tcp", "tcp"],
      ["tcp6", "tcp"],
      ["udp", "udp"],
      ["udp6", "udp"],
    ] as const) {
      const table = await this.processes.proc(`${pid}/net/${file}`);
      if (table !== undefined) sockets.push(...listeningSockets(table, protocol));
    }
    return sockets;
  }

  /** The root and its descendants that live, those included whose parents are gone. */
  private async members(): Promise<number[]> {
    const family = new Map<number, number>();
    const queue = [this.root, ...this.family.keys()];
    for (const pid of queue) {
      if (family.has(pid)) continue;
      const stat = await liveStat(this.processes, pid);
      const known = this.family.get(pid);
      if (stat === undefined || (known !== undefined && known !== stat.startTicks)) continue;
      family.set(pid, stat.startTicks);
      for (const child of await this.childrenOf(pid)) queue.push(child);
    }
    this.family = family;
    return [...family.keys()];
  }

  private async childrenOf(pid: number): Promise<number[]> {
    const threads = await this.processes.procList(`${pid}/task`);
    const lists = await Promise.all(threads.map((thread) => this.processes.proc(`${pid}/task/${thread}/children`)));
    if (threads.length > 0 && lists.every((list) => list === undefined)) return this.childrenByParent(pid);
    return lists.flatMap((list) => (list ?? "").split(" ").filter((word) => word !== "")).map(Number);
  }

  /** For kernels without /proc/<pid>/task/<tid>/children. */
  private async childrenByParent(pid: number): Promise<number[]> {
    const pids = (await this.processes.procList("")).filter((name) => /^\d+$/.test(name)).map(Number);
    const stats = await Promise.all(pids.map(async (one) => [one, await liveStat(this.processes, one)] as const));
    return stats.filter(([, stat]) => stat?.parent === pid).map(([one]) => one);
  }
}
