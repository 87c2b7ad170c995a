// Announces the names of Avahi's file of static hosts while nobody else on this host does.
import { Bell, Bells, folderOf } from "../../base/bells.ts";
import type { Clock } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import { codeOf, messageOf } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import type { Processes } from "../../base/process.ts";
import { avahiRuns } from "./announce-avahi.ts";
import type { Mdns, PublishEvent, Published } from "./engine.ts";
import { parseStaticHosts, type StaticHost } from "./static-hosts.ts";

/** Which file of static hosts is announced. */
export interface HostsRule {
  readonly path: string;
  /** True where Avahi's own daemon would announce it: then it is left to it while it runs. */
  readonly leftToAvahi: boolean;
}

export interface HostsMachine {
  readonly clock: Clock;
  readonly log: Log;
  readonly disk: Disk;
  readonly processes: Pick<Processes, "exists">;
}

/** A file that changes counts when it has been the same for so long. */
const SETTLE_MS = 300;
/** Where the system tells nothing, and whether Avahi runs, is looked at so often. */
const LOOK_AGAIN_MS = 5000;
const LARGEST_FILE_BYTES = 1 << 20;

interface Standing {
  readonly published: Pick<Published, "withdraw">;
  /** Set where the name turned out to be somebody else's. */
  lost: boolean;
}

/** One per agent. */
export class HostsAnnouncer {
  readonly #machine: HostsMachine;
  readonly #bell = new Bell();
  readonly #standing = new Map<string, Standing>();
  readonly #faults = new Map<string, string>();
  #rule: HostsRule | undefined;
  #unread: readonly string[] = [];

  constructor(rule: HostsRule | undefined, machine: HostsMachine) {
    this.#rule = rule;
    this.#machine = machine;
  }

  /** Takes another file; names that stand in both stay as they are. */
  retell(rule: HostsRule | undefined): void {
    this.#rule = rule;
    this.#bell.ring();
  }

  get complaints(): readonly { readonly about: string; readonly text: string }[] {
    const about = this.#rule?.path ?? "";
    return [...this.#unread, ...this.#faults.values()].map((text) => ({ about, text }));
  }

  /** Keeps the LAN at what the file says until the signal; then goodbye is said. `changed` is called when there is something else to complain about. */
  async follow(mdns: Mdns, signal: AbortSignal, changed: () => void): Promise<void> {
    const { clock, disk, log } = this.#machine;
    const bells = new Bells({ disk, log }, this.#bell.ring);
    const leaving: Promise<void>[] = [];
    const stop = (): void => {
      for (const key of [...this.#standing.keys()]) leaving.push(this.#withdraw(key));
      this.#bell.ring();
    };
    signal.addEventListener("abort", stop, { once: true });
    let before: string | undefined;
    try {
      while (!signal.aborted) {
        const rule = this.#rule;
        await bells.set(rule === undefined ? [] : [folderOf(rule.path)]);
        const told = JSON.stringify(this.complaints);
        const text = rule === undefined ? "" : await this.#read(rule);
        if (signal.aborted) break;
        const settled = before === undefined || text === before || text === undefined;
        before = text ?? before;
        if (settled && text !== undefined) this.#bring(text, mdns, changed);
        if (told !== JSON.stringify(this.complaints)) changed();
        const timer = clock.after(settled ? LOOK_AGAIN_MS : SETTLE_MS, this.#bell.ring);
        await this.#bell.heard();
        timer.cancel();
      }
    } finally {
      signal.removeEventListener("abort", stop);
      stop();
      bells.close();
      await Promise.all(leaving);
    }
  }

  /** The file's text; empty where there is none, or Avahi announces it; undefined where it cannot be read now: then what was read last stays. */
  async #read({ path, leftToAvahi }: HostsRule): Promise<string | undefined> {
    const { disk, processes } = this.#machine;
    this.#unread = [];
    if (leftToAvahi && (await avahiRuns(disk, processes))) return "";
    try {
      const info = await disk.info(path);
      if (info === undefined) {
        // A file of Avahi's that is not there is nothing to complain about.
        if (!leftToAvahi) this.#unread = ["there is no such file"];
        return "";
      }
      if (!info.isFile || info.size > LARGEST_FILE_BYTES) {
        this.#unread = [`is no file of at most ${LARGEST_FILE_BYTES >> 10} KiB and was not read`];
        return undefined;
      }
      return await disk.readText(path);
    } catch (error) {
      this.#unread = [`cannot be read: ${messageOf(error)}`];
      return undefined;
    }
  }

  #bring(text: string, mdns: Mdns, changed: () => void): void {
    const { hosts, faults } = parseStaticHosts(text);
    const wanted = new Map(hosts.map((host) => [`${host.name.toLowerCase()} ${host.address.toLowerCase()}`, host]));
    for (const key of [...this.#standing.keys()]) if (!wanted.has(key)) void this.#withdraw(key);
    for (const key of [...this.#faults.keys()]) if (!wanted.has(key)) this.#faults.delete(key);
    for (const [i, fault] of faults.entries()) this.#faults.set(`line ${i}`, fault);
    for (const [key, host] of wanted) if (!this.#standing.has(key)) this.#publish(key, host, mdns, changed);
  }

  #publish(key: string, host: StaticHost, mdns: Mdns, changed: () => void): void {
    const happened = (event: PublishEvent): void => {
      const standing = this.#standing.get(key);
      if (event.kind !== "renamed" || standing === undefined || standing.lost) return;
      // A static name has no other one to take.
      standing.lost = true;
      this.#faults.set(key, `${host.name} is not announced for ${host.address}: another host of the LAN has that name`);
      this.#machine.log.warn(this.#faults.get(key) ?? "");
      void this.#goodbye(key, standing);
      changed();
    };
    const publish = (reverse: boolean): Pick<Published, "withdraw"> =>
      mdns.publishAddress({ ...host, reverse }, { changed: happened });
    try {
      let published: Pick<Published, "withdraw">;
      try {
        published = publish(true);
      } catch (error) {
        if (codeOf(error) !== "conflict") throw error;
        // A further name of this very host: its reverse name is the host's own.
        published = publish(false);
      }
      this.#standing.set(key, { published, lost: false });
      this.#faults.delete(key);
    } catch (error) {
      this.#faults.set(key, `${host.name} is not announced for ${host.address}: ${messageOf(error)}`);
    }
  }

  async #withdraw(key: string): Promise<void> {
    const standing = this.#standing.get(key);
    this.#standing.delete(key);
    if (standing !== undefined) await this.#goodbye(key, standing);
  }

  async #goodbye(key: string, { published }: Standing): Promise<void> {
    await published.withdraw().catch((error: unknown) => {
      this.#machine.log.warn(`goodbye of "${key}" was not sent`, { error: messageOf(error) });
    });
  }
}
