// Announcing: this host's own routable services and its service files on the LAN; what is unhealthy, drained or gone says goodbye.
import { Bell } from "../../base/bells.ts";
import type { Clock } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import { messageOf } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import type { Net } from "../../base/net.ts";
import type { Processes } from "../../base/process.ts";
import type { Agent } from "../../contracts/agent.ts";
import { followHost, routableHere } from "../../contracts/own.ts";
import type { Instance } from "../../model/instance.ts";
import { avahiRuns } from "./announce-avahi.ts";
import { HostsAnnouncer, type HostsRule } from "./announce-hosts.ts";
import { keyOfName, type Planned, type PlanRules, planAnnouncements } from "./announce-plan.ts";
import type { Group, Mdns, Published, Service } from "./engine.ts";
import { collide } from "./service-file.ts";
import { type FileGroup, watchServiceFiles } from "./service-file-folder.ts";
import type { Announced } from "./source.ts";
import type { Lan, Use } from "./source-lan.ts";
import { idOf, markOf, serviceOfType } from "./source-registration.ts";

/** Which service files are announced. */
export interface FilesRule {
  readonly folder: string;
  /** True where Avahi's own daemon would announce them: then they are left to it while it runs. */
  readonly leftToAvahi: boolean;
}

/** What is announced. */
export interface AnnounceRules {
  readonly rules: PlanRules;
  /** Absent = no service files. */
  readonly files?: FilesRule;
  /** Absent = no static hosts. */
  readonly hosts?: HostsRule;
}

export interface AnnouncerMachine {
  readonly clock: Clock;
  readonly log: Log;
  readonly disk: Disk;
  readonly net: Pick<Net, "interfaces">;
  readonly processes: Pick<Processes, "exists">;
  readonly agent: Pick<Agent, "services" | "checks" | "changed" | "version" | "node">;
  readonly nodeId: string;
  /** Called when what `Announced` tells has changed. */
  readonly changed: () => void;
}

/** Bursts of changes are one look. */
const TOGETHER_MS = 10;
const AVAHI_LOOK_MS = 5000;

interface Standing {
  readonly service: string;
  group: Group;
  readonly published: Published;
}

/** One per agent. Nothing is announced before `start`. */
export class Announcer implements Announced {
  readonly #lan: Lan;
  #rules: PlanRules;
  #folder: FilesRule | undefined;
  readonly #hosts: HostsAnnouncer;
  readonly #machine: AnnouncerMachine;
  readonly #stop = new AbortController();
  /** By instance id or file. */
  readonly #standing = new Map<string, Standing>();
  readonly #refused = new Map<string, { readonly group: string; readonly text: string }>();
  readonly #leaving = new Set<Promise<void>>();
  #planned: readonly Planned[] = [];
  /** The types that were announced under these rules: what others of this host say with them is looked at. */
  readonly #types = new Set<string>();
  #files: readonly FileGroup[] = [];
  #fileComplaints: Announced["complaints"] = [];
  #running: Promise<void> | undefined;
  readonly #bell = new Bell();
  #otherFolder = new AbortController();

  constructor(lan: Lan, { rules, files, hosts }: AnnounceRules, machine: AnnouncerMachine) {
    this.#lan = lan;
    this.#rules = rules;
    this.#folder = files;
    this.#hosts = new HostsAnnouncer(hosts, machine);
    this.#machine = machine;
  }

  start(): void {
    if (this.#stop.signal.aborted) return;
    this.#running ??= this.#run().catch((error: unknown) => {
      if (!this.#stop.signal.aborted)
        this.#machine.log.error("nothing is announced on the LAN any more", { error: messageOf(error) });
    });
  }

  /** Takes other rules: what they ask for as well stays as it stands, of the rest goodbye is said. */
  retell({ rules, files: folder, hosts }: AnnounceRules): void {
    this.#hosts.retell(hosts);
    if (JSON.stringify(rules) !== JSON.stringify(this.#rules)) this.#types.clear();
    this.#rules = rules;
    const isOther = JSON.stringify(folder) !== JSON.stringify(this.#folder);
    this.#folder = folder;
    if (isOther) this.#otherFolder.abort();
    this.#bell.ring();
  }

  /** Resolves when goodbye is said for everything. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#bell.ring();
    await this.#running;
  }

  get count(): number {
    return this.#standing.size;
  }

  get files(): readonly FileGroup[] {
    return this.#files;
  }

  get complaints(): Announced["complaints"] {
    const unmet = this.#planned.flatMap((one) =>
      "why" in one && one.meant ? [{ about: one.id, text: `is not announced on the LAN: ${one.why}` }] : [],
    );
    const refused = [...this.#refused].map(([about, { text }]) => ({ about, text }));
    return [...unmet, ...refused, ...this.#fileComplaints, ...this.#hosts.complaints];
  }

  isMine(name: string, type: string): boolean {
    const key = keyOfName(name, type);
    for (const standing of this.#standing.values()) if (namesOf(standing).includes(key)) return true;
    return false;
  }

  /** What is announced of a service, and why something of it is not. */
  about(service: string): readonly {
    readonly id: string;
    readonly published?: Published;
    readonly services?: readonly Service[];
    readonly why?: string;
  }[] {
    const lower = service.toLowerCase();
    const there = [...this.#standing].flatMap(([id, { service: name, group, published }]) => {
      const services = group.services.filter(
        ({ type }) => (name === "" ? serviceOfType(type) : name.toLowerCase()) === lower,
      );
      return services.length === 0 ? [] : [{ id, published, services }];
    });
    const not = this.#planned.flatMap((one) =>
      "why" in one && one.service.toLowerCase() === lower ? [{ id: one.id, why: one.why }] : [],
    );
    return [...there, ...not];
  }

  async #run(): Promise<void> {
    const { clock, agent } = this.#machine;
    const { signal } = this.#stop;
    const use = await this.#lan.acquire(this.#bell.ring);
    const { mdns } = use;
    const others = [
      followHost(agent, this.#bell.ring, signal),
      this.#followFiles(mdns, signal),
      this.#hosts.follow(mdns, signal, this.#machine.changed),
    ];
    try {
      while (!signal.aborted) {
        this.#announce(use);
        await this.#bell.heard();
        await clock.sleep(TOGETHER_MS, signal).catch(() => {});
      }
    } finally {
      for (const key of [...this.#standing.keys()]) this.#withdraw(key);
      await Promise.all(this.#leaving);
      await use.release();
      await Promise.all(others);
    }
  }

  /** Service files of the folder that is told at present. */
  async #followFiles(mdns: Mdns, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#otherFolder = new AbortController();
      const either = AbortSignal.any([signal, this.#otherFolder.signal]);
      if (this.#folder !== undefined) await this.#followFolder(this.#folder, mdns, either);
      else {
        this.#noFiles();
        await new Promise<void>((resolve) => either.addEventListener("abort", () => resolve(), { once: true }));
      }
      // When this agent stops, services of files stay this host's; where another folder is told, until that is read.
    }
  }

  #noFiles(): void {
    if (this.#files.length + this.#fileComplaints.length === 0) return;
    this.#files = [];
    this.#fileComplaints = [];
    this.#bell.ring();
  }

  /** Service files, while nobody else announces them. */
  async #followFolder({ folder, leftToAvahi }: FilesRule, mdns: Mdns, signal: AbortSignal): Promise<void> {
    const { clock, disk, processes, log } = this.#machine;
    const runs = async (): Promise<boolean> => leftToAvahi && (await avahiRuns(disk, processes));
    const label = (): string => mdns.hostName.replace(/\.local$/i, "");
    while (!signal.aborted) {
      if (!(await runs())) {
        const round = new AbortController();
        const either = AbortSignal.any([signal, round.signal]);
        const looking = (async () => {
          while (leftToAvahi && !either.aborted) {
            await clock.sleep(AVAHI_LOOK_MS, either).catch(() => {});
            if (await runs()) round.abort();
          }
        })();
        try {
          for await (const { groups, complaints } of watchServiceFiles(folder, { clock, disk }, label).watch(either)) {
            this.#files = groups;
            // A folder of Avahi's that is not there is nothing to complain about.
            this.#fileComplaints = complaints.filter(({ about }) => !leftToAvahi || about !== folder);
            this.#bell.ring();
          }
        } catch (error) {
          if (!either.aborted) log.error("service files are not read any more", { folder, error: messageOf(error) });
        }
        round.abort();
        await looking;
        if (signal.aborted) return;
      }
      this.#noFiles();
      await clock.sleep(AVAHI_LOOK_MS, signal).catch(() => {});
    }
  }

  /** Brings what stands on the LAN to what should. */
  #announce({ mdns, browse }: Use): void {
    const { net, agent, nodeId } = this.#machine;
    const interfaces = net.interfaces();
    const routable = routableHere(agent);
    // Somebody else's words, and the agent itself, are not ours to announce; service files are announced as what they say.
    const own = [...(routable?.values() ?? [])].filter(
      ({ origin, name }) => origin.authority === "first-hand" && origin.source !== "mdns" && name !== "consul",
    );
    const planned = planAnnouncements(own, this.#rules, {
      label: this.#lan.hostLabel,
      nodeId,
      nodeAddress: agent.node.address,
      interfaceOf: (address) => interfaces.find((one) => !one.internal && one.address === address)?.name,
    });
    for (const one of planned) if ("group" in one) for (const { type } of one.group.services) this.#types.add(type);
    browse(this.#types);
    this.#planned = planned.map((one) => this.#elsewhere(one, mdns));
    const wanted = new Map<string, { readonly service: string; readonly group: Group }>();
    for (const one of this.#planned) if ("group" in one) wanted.set(one.id, one);
    for (const { path, group: whole } of routable === undefined ? [] : this.#files) {
      const group = this.#ofFile(whole, routable as ReadonlyMap<string, Instance>);
      if (group.services.length > 0) wanted.set(path, { service: "", group });
    }
    for (const [key, { service, group }] of wanted) if (service === "") this.#moved(key, group, wanted);
    for (const key of this.#refused.keys()) if (!wanted.has(key)) this.#refused.delete(key);
    for (const key of [...this.#standing.keys()]) if (!wanted.has(key)) this.#withdraw(key);
    for (const [key, { service, group }] of wanted) this.#put(mdns, key, service, group);
    this.#machine.changed();
  }

  /** What another file says now under the same name goes on, without a goodbye. */
  #moved(key: string, { name, services }: Group, wanted: ReadonlyMap<string, unknown>): void {
    if (this.#standing.has(key)) return;
    for (const [before, standing] of this.#standing) {
      if (standing.service !== "" || standing.group.name !== name || wanted.has(before)) continue;
      if (!services.some((one) => standing.group.services.some((other) => collide(one, other)))) continue;
      this.#standing.delete(before);
      this.#standing.set(key, standing);
      return;
    }
  }

  #put(mdns: Mdns, key: string, service: string, group: Group): void {
    const standing = this.#standing.get(key);
    if (standing !== undefined && textOf(standing.group) === textOf(group)) return;
    const refused = this.#refused.get(key);
    if (refused !== undefined && refused.group === textOf(group)) return;
    try {
      if (standing !== undefined && standing.group.name === group.name) {
        standing.published.update(group.services);
        standing.group = group;
      } else {
        if (standing !== undefined) this.#withdraw(key);
        const published = mdns.publish(group, { changed: (event) => this.#changed(event) });
        this.#standing.set(key, { service, group, published });
      }
      this.#refused.delete(key);
    } catch (error) {
      this.#refused.set(key, { group: textOf(group), text: `is not announced on the LAN: ${messageOf(error)}` });
    }
  }

  #changed(event: { readonly kind: string; readonly from?: string; readonly to?: string }): void {
    if (event.kind === "renamed") {
      const text = `"${event.from}" is somebody else's on the LAN: "${event.to}" is announced in its place`;
      this.#machine.log.warn(text);
    }
    this.#bell.ring();
  }

  #withdraw(key: string): void {
    const standing = this.#standing.get(key);
    if (standing === undefined) return;
    this.#standing.delete(key);
    const leaving = standing.published.withdraw().catch((error: unknown) => {
      this.#machine.log.warn(`goodbye of "${standing.group.name}" was not sent`, { error: messageOf(error) });
    });
    this.#leaving.add(leaving);
    void leaving.then(() => this.#leaving.delete(leaving));
  }

  /** The services of a file that nothing holds back here. */
  #ofFile({ name, services }: Group, routable: ReadonlyMap<string, Instance>): Group {
    const { agent } = this.#machine;
    const kept = services.filter(({ type }) => {
      const id = idOf({ name, type, domain: "local" });
      return routable.has(id) || !agent.services().has(id);
    });
    return { name, services: kept };
  }

  /** What another program of this host (an avahi-daemon) announces already is not announced twice. */
  #elsewhere(one: Planned, mdns: Mdns): Planned {
    if (!("group" in one)) return one;
    const { nodeId } = this.#machine;
    for (const [first, ...more] of this.#lan.resolved())
      for (const seen of [...(first === undefined ? [] : [first]), ...more]) {
        const mark = markOf(seen.txt);
        if (!seen.local || mark === nodeId || (mark !== undefined && mark > nodeId)) continue;
        if (seen.host.toLowerCase() !== mdns.hostName.toLowerCase() || this.isMine(seen.name, seen.type)) continue;
        const same = one.group.services.some(
          ({ type, port }) => port === seen.port && keyOfName("", type) === keyOfName("", seen.type),
        );
        if (same)
          return {
            ...{ id: one.id, service: one.service, meant: false },
            why: `another program of this host announces it already, as "${seen.name}"`,
          };
      }
    return one;
  }
}

/** A group as text, to be compared. */
function textOf(group: Group): string {
  return JSON.stringify(group, (_, value) =>
    value instanceof Uint8Array ? Buffer.from(value).toString("hex") : value,
  );
}

function namesOf({ group, published }: Standing): readonly string[] {
  return group.services.map(({ type }) => keyOfName(published.name, type));
}
