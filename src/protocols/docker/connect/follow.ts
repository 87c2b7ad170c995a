// Keeps the listeners in containers as their labels want them: the whole list of containers against what is open, whenever something rings.
import type { Clock, Timer } from "../../../base/clock.ts";
import { codeOf, messageOf, TrilithError } from "../../../base/error.ts";
import type { Log } from "../../../base/log.ts";
import type { NamespaceSockets } from "../../../base/namespace-socket.ts";
import type { Processes } from "../../../base/process.ts";
import { jitter, type Random } from "../../../base/random.ts";
import type { Connector } from "../../../contracts/connect.ts";
import type { RunningContainer } from "../engine-watch.ts";
import { byStart, type Container, describe } from "../inspect.ts";
import { Forwarder } from "./forwarder.ts";
import { type ConnectLabels, hasConnectLabels, readConnectLabels } from "./labels.ts";
import { portsTaken } from "./taken.ts";
import { type Located, wantedPorts } from "./wanted.ts";

export interface ForwardingMachine {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly processes: Pick<Processes, "proc">;
  readonly sockets: NamespaceSockets;
  readonly connector: Pick<Connector, "proxy">;
  /** The agent's DNS domain. */
  readonly domain: string;
  /** True where images may ask for ports, too. */
  images: boolean;
}

/** What became of one container's labels. */
export interface Told {
  readonly container: Container;
  readonly forwarders: readonly Forwarder[];
  /** What is wrong besides what the forwarders say. */
  readonly faults: readonly string[];
}

/** So often it is looked whether processes are still there and taken ports are free; the engine tells everything else. */
const LOOK_MS = 1_000;
const JITTER = 0.2;
/** Namespaces entered at a time, a process each. */
const PARALLEL = 4;
/** Connections that are open when the agent stops may go on for so long. */
const STOP_DRAIN_MS = 2_000;
/** A process that is not to be seen has probably just ended; only where it stays so, somebody should know. */
const PATIENCE_MS = 5_000;

interface Followed {
  readonly container: Container;
  readonly labels: ConnectLabels;
  readonly far: boolean;
  /** Why its namespace cannot be found. */
  trouble?: string;
  unseenSinceMs?: number;
}

/** Follows the containers of this host's engines from `start` to `stop`. */
export class Forwarding {
  readonly #machine: ForwardingMachine;
  readonly #end = new AbortController();
  #followed = new Map<string, Followed>();
  #forwarders = new Map<string, Forwarder>();
  #clashes: ReadonlyMap<string, readonly string[]> = new Map();
  /** Groups of one namespace each that wait for a place. */
  readonly #waiting: Forwarder[][] = [];
  /** Namespaces of groups that wait or are opened. */
  readonly #entering = new Set<string>();
  readonly #opening = new Set<Promise<void>>();
  readonly #closing = new Set<Promise<void>>();
  #said = new Map<string, string>();
  #rung = false;
  #passing: Promise<void> | undefined;
  #timer: Timer | undefined;

  constructor(machine: ForwardingMachine) {
    this.#machine = { ...machine };
  }

  /** All containers that run now. Those that ended lose their listeners before this returns, so that their networks can go. */
  follow(running: Iterable<RunningContainer>): void {
    if (this.#end.signal.aborted) return;
    const followed = new Map<string, Followed>();
    for (const { container, far } of running) {
      if (!hasConnectLabels(container.labels)) continue;
      const before = this.#followed.get(container.id);
      followed.set(
        container.id,
        before?.container === container ? before : { container, far, labels: this.#labelsOf(container) },
      );
    }
    const changed =
      followed.size !== this.#followed.size ||
      [...followed.values()].some((one) => this.#followed.get(one.container.id) !== one);
    this.#followed = followed;
    if (!changed) return;
    for (const forwarder of this.#forwarders.values())
      if (!forwarder.wanted.holders.some((container) => this.#runs(container))) this.#close(forwarder, 0);
    this.#ring();
  }

  /** Whether images may ask for ports, too, from now on. */
  retell(images: boolean): void {
    if (images === this.#machine.images) return;
    this.#machine.images = images;
    this.#followed = new Map(
      [...this.#followed].map(([id, one]) => [id, { ...one, labels: this.#labelsOf(one.container) }]),
    );
    this.#ring();
  }

  #labelsOf({ labels, imageLabels }: Container): ConnectLabels {
    const { domain, images } = this.#machine;
    if (images) return readConnectLabels(labels, domain);
    if (typeof imageLabels !== "string") return readConnectLabels(labels, domain, imageLabels);
    const text = `whether its labels are the image's own is not known (${imageLabels}): with "docker": {"connect": "images"} that does not matter`;
    return { ports: [], faults: [text] };
  }

  /** Ends everything; open connections have a moment. */
  async stop(): Promise<void> {
    this.#end.abort(new TrilithError("stopped", "the agent is stopping"));
    this.#timer?.cancel();
    this.#followed = new Map();
    for (const forwarder of this.#forwarders.values()) this.#close(forwarder, STOP_DRAIN_MS);
    await this.#passing;
    await Promise.all(this.#opening);
    await Promise.all(this.#closing);
  }

  /** Every container that asks for something. */
  told(): readonly Told[] {
    return [...this.#followed.values()].map(({ container, labels, far, trouble }) => ({
      container,
      forwarders: [...this.#forwarders.values()].filter(({ wanted }) =>
        wanted.holders.some(({ id }) => id === container.id),
      ),
      faults: [
        ...labels.faults,
        ...(far ? ["it runs on another host: an agent there has to do that"] : []),
        ...(trouble === undefined ? [] : [trouble]),
        ...(this.#clashes.get(container.id) ?? []),
      ],
    }));
  }

  /** True while this very life of the container goes on. */
  #runs(container: Container): boolean {
    const now = this.#followed.get(container.id)?.container;
    return now !== undefined && now.pid === container.pid && now.startedAt === container.startedAt;
  }

  #ring(): void {
    if (this.#end.signal.aborted) return;
    this.#rung = true;
    this.#passing ??= this.#passes().finally(() => {
      this.#passing = undefined;
    });
  }

  async #passes(): Promise<void> {
    while (this.#rung && !this.#end.signal.aborted) {
      this.#rung = false;
      this.#timer?.cancel();
      try {
        await this.#pass();
      } catch (error) {
        if (!this.#end.signal.aborted) this.#machine.log.error(`ports in containers: ${messageOf(error)}`);
      }
      this.#say();
    }
    if (this.#end.signal.aborted || this.#followed.size === 0) return;
    const { clock, random } = this.#machine;
    this.#timer = clock.after(jitter(LOOK_MS, JITTER, random), () => this.#ring());
  }

  async #pass(): Promise<void> {
    const { clock } = this.#machine;
    const followed = [...this.#followed.values()].sort((a, b) => byStart(a.container, b.container));
    const located = (await Promise.all(followed.map((one) => this.#locate(one)))).filter((one) => one !== undefined);
    const { wanted, clashes } = wantedPorts(located.filter(({ container }) => this.#runs(container)));
    this.#clashes = clashes;
    for (const [key, forwarder] of this.#forwarders) {
      const now = wanted.get(key);
      if (now !== undefined && now.service === forwarder.wanted.service) forwarder.wanted = now;
      else this.#close(forwarder, 0);
    }
    for (const [key, one] of wanted) if (!this.#forwarders.has(key)) this.#forwarders.set(key, new Forwarder(one));
    await this.#lookAtTaken();
    const nowMs = clock.monotonic();
    const due = new Map<string, Forwarder[]>();
    for (const forwarder of this.#forwarders.values()) {
      const { namespace } = forwarder.wanted;
      if (this.#entering.has(namespace) || forwarder.missing(nowMs).length === 0) continue;
      due.set(namespace, [...(due.get(namespace) ?? []), forwarder]);
    }
    for (const [namespace, group] of due) {
      this.#entering.add(namespace);
      this.#waiting.push(group);
    }
    while (this.#opening.size < PARALLEL && this.#waiting.length > 0) this.#openNext();
  }

  /** Opens what waits longest; whoever comes meanwhile waits for a place, not for all before it. */
  #openNext(): void {
    const group = this.#waiting.shift();
    const namespace = group?.[0]?.wanted.namespace;
    if (group === undefined || namespace === undefined) return;
    const opening = this.#open(group, namespace).finally(() => {
      this.#entering.delete(namespace);
      this.#opening.delete(opening);
      this.#openNext();
      // What else is wanted there by now was passed over.
      if (this.#waiting.length === 0) this.#ring();
    });
    this.#opening.add(opening);
  }

  /** Where a container's network is; undefined where it is not (any more), or cannot be found out. */
  async #locate(followed: Followed): Promise<Located | undefined> {
    const { container, labels, far } = followed;
    const { sockets, processes, clock } = this.#machine;
    if (far || labels.ports.length === 0 || container.pid === 0) return undefined;
    try {
      const namespace = await sockets.namespaceOf(container.pid);
      if (!(await isOf(processes.proc, container)))
        throw new TrilithError("not-found", `process ${container.pid} is another one here`);
      delete followed.trouble;
      delete followed.unseenSinceMs;
      return { container, namespace, labels };
    } catch (error) {
      if (codeOf(error) !== "not-found") followed.trouble = messageOf(error);
      else {
        followed.unseenSinceMs ??= clock.monotonic();
        if (clock.monotonic() - followed.unseenSinceMs >= PATIENCE_MS)
          followed.trouble = `its process ${container.pid} is not to be seen: an agent in a container needs --pid=host (trilith up --connect)`;
      }
      return undefined;
    }
  }

  /** Ports that others listened at may be free by now. */
  async #lookAtTaken(): Promise<void> {
    const { processes } = this.#machine;
    const taken = [...this.#forwarders.values()].filter(({ trouble }) => trouble?.taken);
    await Promise.all(
      taken.map(async (forwarder) => {
        const { holders, protocol, port } = forwarder.wanted;
        const ports = await portsTaken((path) => processes.proc(path), holders[0].pid, protocol);
        if (!ports.has(port)) forwarder.retryNow();
      }),
    );
  }

  /** Opens what is missing in one namespace. Never rejects. */
  async #open(group: readonly Forwarder[], namespace: string): Promise<void> {
    const { sockets, connector, clock } = this.#machine;
    const nowMs = clock.monotonic();
    const wanting = group.filter((forwarder) => this.#forwarders.get(forwarder.wanted.key) === forwarder);
    const asked = wanting.map((forwarder) => forwarder.missing(nowMs));
    const [first] = wanting;
    if (first === undefined || this.#end.signal.aborted) return;
    try {
      const here = namespace === (await sockets.ownNamespace());
      const from = { pid: first.wanted.holders[0].pid, namespace };
      const answers = [...(await sockets.open(from, asked.flat(), this.#end.signal))];
      for (const [i, forwarder] of wanting.entries()) {
        const wanted = asked[i] ?? [];
        const own = answers.splice(0, wanted.length);
        await forwarder.stand(wanted, own, connector, { nowMs: clock.monotonic(), here });
      }
    } catch (error) {
      if (this.#end.signal.aborted) return;
      // The process ended meanwhile: the engine tells so, or the next look does.
      for (const forwarder of wanting) forwarder.fail(error, clock.monotonic());
    }
  }

  #close(forwarder: Forwarder, drainMs: number): void {
    this.#forwarders.delete(forwarder.wanted.key);
    const closed = forwarder.close(drainMs).finally(() => this.#closing.delete(closed));
    this.#closing.add(closed);
  }

  /** Logs what changed. */
  #say(): void {
    const { log } = this.#machine;
    const said = new Map<string, string>();
    for (const { container, faults } of this.told())
      for (const fault of faults) said.set(`container ${describe(container)}: ${fault}`, "");
    for (const { where, wanted, trouble, listeners } of this.#forwarders.values()) {
      const about = `${where} ${wanted.namespace}`;
      if (trouble !== undefined) said.set(about, `is not ${wanted.service}: ${trouble.text}`);
      else if (listeners.length > 0) said.set(about, `is ${wanted.service}`);
    }
    for (const [about, text] of said) {
      if (this.#said.get(about) === text) continue;
      const line = text === "" ? about : `${about.replace(/ net:\[\d+\]$/, "")} ${text}`;
      if (text.startsWith("is ") && !text.startsWith("is not ")) log.info(line);
      else log.warn(line);
    }
    this.#said = said;
  }
}

/** Whether the process that the engine names is that container's one here, too: it has other numbers in other namespaces. */
async function isOf(proc: Processes["proc"], { id, pid }: Container): Promise<boolean> {
  if ((await proc(`${pid}/cgroup`))?.includes(id)) return true;
  return (await proc(`${pid}/mountinfo`))?.includes(id) ?? false;
}
