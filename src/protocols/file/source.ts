// The source "file": reads service files, notices when they change, keeps the last good version of a file that went bad.
import { Bells, folderOf } from "../../base/bells.ts";
import type { Clock, Timer } from "../../base/clock.ts";
import { configFiles } from "../../base/config-files.ts";
import type { Disk, FileInfo } from "../../base/disk.ts";
import { codeOf, messageOf, TrilithError } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import type { Agent, CheckRegistration } from "../../contracts/agent.ts";
import type { Source, SourceList } from "../../contracts/source.ts";
import { parseConfigText } from "../../wire/hcl/config.ts";
import { type CheckAbility, type Definitions, definitionsIn, inlineConfig, mergeDefinitions } from "./definitions.ts";

/** What the source reads. */
export interface FileConfig {
  /** Files and folders that hold nothing but service and check definitions; of a folder, *.json and *.hcl in lexical order. Watched. */
  readonly paths: readonly string[];
  /** Consul configuration files and folders: their service(s) and check(s) are taken, other keys are somebody else's. Read again on reload only, as Consul does. */
  readonly consulPaths: readonly string[];
  /** Definitions given in the configuration itself, in the shape of a file: {service, services, check, checks}. */
  readonly definitions: readonly Readonly<Record<string, unknown>>[];
}

export interface FileMachine {
  readonly clock: Clock;
  readonly disk: Disk;
  readonly log: Log;
  readonly agent: Pick<Agent, "registerCheck" | "deregisterCheck" | "checks" | "services" | "changed" | "version">;
  readonly ability: CheckAbility;
}

/** Changes are read after so long without another one: editors and `mv` make several in a row. */
const QUIET_MS = 50;
/** A file that is being written for ever is read at the latest after so long. */
const LONGEST_WAIT_MS = 1000;
/** A file that became unreadable or empty has so long to be written to its end before that counts. */
const SETTLE_MS = 300;
/** Where the system tells nothing (missing folders, network file systems, targets of links) files are looked at so often. */
const LOOK_AGAIN_MS = 15_000;
const LARGEST_FILE_BYTES = 16 << 20;

interface Trouble {
  readonly about: string;
  readonly text: string;
}

interface KnownFile {
  readonly path: string;
  readonly text: string | undefined;
  readonly stamp: string;
  readonly good: Definitions | undefined;
  /** What is wrong with the present text. */
  readonly fault: string | undefined;
  /** Until then the present text may still be half-written, and the last good version counts without complaint. */
  readonly settlesAt: number | undefined;
}

interface Inline {
  readonly name: string;
  readonly definitions: Definitions;
  readonly fault: string | undefined;
}

const NOTHING: Definitions = { services: [], checks: [], warnings: [] };

/** The source and its `reload`. */
export interface FileSource extends Source {
  /**
   * Reads everything again, also without a change; resolves when the agent has taken it over. What is right is taken over in every case.
   * @throws TrilithError `invalid` with each file and check that is not in force as it stands there, and why
   */
  reload(): Promise<void>;
}

/** A source of the services in these files and folders. Nothing is read before it runs. */
export function createFileSource(config: FileConfig, machine: FileMachine): FileSource {
  return new Files(config, machine);
}

class Files implements FileSource {
  readonly name = "file";
  private readonly config: FileConfig;
  private readonly machine: FileMachine;
  private known = new Map<string, KnownFile>();
  private consulFiles: readonly KnownFile[] = [];
  private consulRead = false;
  private troubles: Trouble[] = [];
  /** Paths where nothing is. */
  private readonly absent = new Set<string>();
  private registered = new Map<string, string>();
  /** Checks of their own that the agent did not take. */
  private untaken: readonly Trouble[] = [];
  private adopted = false;
  private summary: { ok: boolean; text: string };
  private wake: (() => void) | undefined;
  private rung = false;
  private again = false;
  private readonly waiting: ((fault?: TrilithError) => void)[] = [];
  private running = false;

  constructor(config: FileConfig, machine: FileMachine) {
    this.config = config;
    this.machine = machine;
    this.summary = { ok: true, text: "not read yet" };
  }

  state(): { readonly ok: boolean; readonly text: string } {
    return this.summary;
  }

  reload(): Promise<void> {
    if (!this.running) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.waiting.push((fault) => (fault === undefined ? resolve() : reject(fault)));
      this.again = true;
      this.ring();
    });
  }

  private ring(): void {
    this.rung = true;
    this.wake?.();
  }

  async *watch(signal: AbortSignal): AsyncIterable<SourceList> {
    const { clock } = this.machine;
    const bells = new Bells(this.machine, () => this.ring());
    const stop = (): void => this.ring();
    signal.addEventListener("abort", stop, { once: true });
    this.running = true;
    let last: string | undefined;
    try {
      while (!signal.aborted) {
        const asked = this.waiting.length;
        const forced = this.again;
        this.again = false;
        this.rung = false;
        await bells.set(await this.foldersToWatch());
        await this.readAll(forced);
        const { list, checks } = this.compose();
        const text = JSON.stringify(list);
        if (forced || text !== last) {
          last = text;
          yield list;
        }
        // The consumer asked for more, so the services are registered and checks can refer to them.
        const unplaced = await this.syncChecks(checks, forced);
        const fault = this.faultOfReload();
        for (const answer of this.waiting.splice(0, asked)) answer(fault);
        if (signal.aborted) break;
        await this.nextBell(signal, unplaced);
        if (!signal.aborted && this.rung && !this.again) await this.quiet(clock, signal);
      }
    } finally {
      this.running = false;
      signal.removeEventListener("abort", stop);
      bells.close();
      for (const answer of this.waiting.splice(0)) answer();
    }
  }

  /** What whoever asked to read again is told, also of a file that may still be half-written; what is in force, but looks wrong, is left to doctor. */
  private faultOfReload(): TrilithError | undefined {
    const all = [
      ...this.troubles.map(({ about, text }) => `${about}: ${text}`),
      ...this.faults(() => true).map(({ text }) => text),
      ...this.untaken.map(({ about, text }) => `${about}: ${text}`),
    ];
    return all.length === 0 ? undefined : new TrilithError("invalid", all.join("; "));
  }

  /** Folders whose change may change a file. A file is watched through its folder, because replacing it makes a new file; so is a folder that is missing. */
  private async foldersToWatch(): Promise<readonly string[]> {
    const folders = new Set<string>();
    for (const path of this.config.paths) {
      const info = await this.machine.disk.info(path).catch(() => undefined);
      folders.add(info?.isDirectory ? path : folderOf(path));
    }
    return [...folders];
  }

  private async readAll(forced: boolean): Promise<void> {
    this.troubles = [];
    const before = this.known;
    const after = new Map<string, KnownFile>();
    for (const path of await this.filesOf(this.config.paths))
      if (!after.has(path)) {
        const file = await this.read(path, before.get(path), "only-definitions");
        if (file !== undefined) after.set(path, file);
      }
    this.known = after;
    if (forced || !this.consulRead) {
      this.consulRead = true;
      const old = new Map(this.consulFiles.map((file) => [file.path, file]));
      const files: KnownFile[] = [];
      for (const path of await this.filesOf(this.config.consulPaths)) {
        const file = await this.read(path, old.get(path), "any");
        // Nothing rings when these settle: what is wrong now is told now.
        if (file !== undefined) files.push({ ...file, settlesAt: undefined });
      }
      this.consulFiles = files;
    }
  }

  /** The files behind the configured paths, in order. */
  private async filesOf(paths: readonly string[]): Promise<string[]> {
    const files: string[] = [];
    for (const path of paths) {
      try {
        const found = await configFiles(path, this.machine.disk);
        this.absent[found === undefined ? "add" : "delete"](path);
        files.push(...(found ?? []));
      } catch (error) {
        this.troubles.push({ about: path, text: `cannot be read: ${messageOf(error)}` });
        // What stood in the folder stays until it can be read again.
        for (const file of [...this.known.keys(), ...this.consulFiles.map((known) => known.path)])
          if (file.startsWith(`${path.replace(/\/+$/, "")}/`)) files.push(file);
      }
    }
    return files;
  }

  private async read(
    path: string,
    before: KnownFile | undefined,
    rootKeys: "only-definitions" | "any",
  ): Promise<KnownFile | undefined> {
    const { disk, clock, ability } = this.machine;
    const now = clock.monotonic();
    let info: FileInfo | undefined;
    let text: string;
    try {
      info = await disk.info(path);
      if (info === undefined || info.isDirectory) return undefined;
      if (info.size > LARGEST_FILE_BYTES)
        return failed(`${path}: is larger than ${LARGEST_FILE_BYTES >> 20} MiB and was not read`, undefined, "");
      // Not touched since it was read, and longer ago than file times are coarse.
      if (before?.settlesAt === undefined && before?.stamp === stampOf(info) && clock.now() - info.modifiedMs > 2000)
        return before;
      text = await disk.readText(path);
    } catch (error) {
      if (codeOf(error) === "not-found") return undefined;
      return failed(`${path}: cannot be read: ${messageOf(error)}`, undefined, "");
    }
    const stamp = stampOf(info);
    if (before !== undefined && before.text === text) {
      if (before.fault === undefined && before.settlesAt === undefined) return { ...before, stamp };
      // Still being written: the clock starts anew. Not written any more and the time is over: it counts.
      if (before.settlesAt === undefined) return this.parsed(path, text, stamp, before, rootKeys, ability);
      if (before.stamp !== stamp) return { ...before, stamp, settlesAt: now + SETTLE_MS };
      if (now < before.settlesAt) return before;
      return this.parsed(path, text, stamp, before, rootKeys, ability);
    }
    const file = this.parsed(path, text, stamp, before, rootKeys, ability);
    const emptied = text.trim() === "" && before?.good !== undefined && hasAny(before.good);
    if (file.fault === undefined && !emptied) return file;
    return { ...file, good: before?.good, settlesAt: now + SETTLE_MS };

    function failed(fault: string, gone: string | undefined, at: string): KnownFile {
      return { path, text: gone, stamp: at, good: before?.good, fault, settlesAt: undefined };
    }
  }

  private parsed(
    path: string,
    text: string,
    stamp: string,
    before: KnownFile | undefined,
    rootKeys: "only-definitions" | "any",
    ability: CheckAbility,
  ): KnownFile {
    try {
      const good = definitionsIn(parseConfigText(text, path), ability, rootKeys);
      return { path, text, stamp, good, fault: undefined, settlesAt: undefined };
    } catch (error) {
      return { path, text, stamp, good: before?.good, fault: messageOf(error), settlesAt: undefined };
    }
  }

  /** The definitions of the configuration itself. */
  private inline(): readonly Inline[] {
    return this.config.definitions.map((value, i) => {
      const name = this.config.definitions.length === 1 ? "configuration" : `configuration (${i + 1})`;
      try {
        return {
          name,
          definitions: definitionsIn(inlineConfig(value, name), this.machine.ability, "only-definitions"),
          fault: undefined,
        };
      } catch (error) {
        return { name, definitions: NOTHING, fault: messageOf(error) };
      }
    });
  }

  /** What is wrong in the configuration itself and in the files that count. */
  private faults(counts: (file: KnownFile) => boolean): readonly Trouble[] {
    const faults: Trouble[] = [];
    for (const { name, fault } of this.inline()) if (fault !== undefined) faults.push({ about: name, text: fault });
    for (const file of [...this.consulFiles, ...this.known.values()])
      if (file.fault !== undefined && counts(file))
        faults.push({
          about: file.path,
          text: `${file.fault}${file.good === undefined ? "" : " (its last good version stays in force)"}`,
        });
    return faults;
  }

  private compose(): { list: SourceList; checks: readonly CheckRegistration[] } {
    const inline = this.inline();
    const files = [...this.consulFiles, ...this.known.values()];
    const merged = mergeDefinitions([
      ...inline,
      ...files.map((file) => ({ name: file.path, definitions: file.good ?? NOTHING })),
    ]);
    const faults = this.faults((file) => file.settlesAt === undefined);
    const complaints = [...this.troubles, ...faults, ...this.untaken, ...merged.complaints];
    const broken = this.troubles.length + faults.length;
    const services = merged.services.length;
    const readable = files.length;
    const where = [...this.config.paths, ...this.config.consulPaths]
      .map((path) => (this.absent.has(path) ? `${path} (nothing is there yet)` : path))
      .join(", ");
    this.summary = {
      ok: broken === 0,
      text: `${services} ${services === 1 ? "service" : "services"} in ${readable} ${readable === 1 ? "file" : "files"}${where === "" ? "" : ` of ${where}`}${
        broken === 0 ? "" : `; ${(faults[0] ?? this.troubles[0])?.text}${broken > 1 ? ` (and ${broken - 1} more)` : ""}`
      }`,
    };
    const { services: list, overrides, checks } = merged;
    return {
      list: { list, authority: "first-hand", complaints, ...(overrides.length === 0 ? {} : { overrides }) },
      checks,
    };
  }

  /**
   * Registers the checks that belong to no service of a file, takes back those that are no longer stated.
   * @returns true where a check's service is not registered (yet)
   */
  private async syncChecks(checks: readonly CheckRegistration[], forced: boolean): Promise<boolean> {
    const { agent, log } = this.machine;
    const wanted = new Map(checks.map((check) => [check.id, check]));
    if (!this.adopted) {
      // What an earlier run left behind.
      this.adopted = true;
      for (const [id, { check }] of agent.checks())
        if (check.origin?.source === "file" && check.serviceId === "") this.registered.set(id, "");
    }
    for (const id of [...this.registered.keys()])
      if (!wanted.has(id)) {
        this.registered.delete(id);
        await agent.deregisterCheck("file", id).catch((error: unknown) => {
          if (codeOf(error) !== "not-found") log.warn(`taking back the check ${id}: ${messageOf(error)}`);
        });
      }
    const unplaced: string[] = [];
    const untaken: Trouble[] = [];
    for (const [id, check] of wanted) {
      const text = JSON.stringify(check);
      const held = agent.checks().has(id);
      if (this.registered.get(id) === text && (held || !forced)) continue;
      try {
        await agent.registerCheck("file", check);
        this.registered.set(id, text);
      } catch (error) {
        this.registered.delete(id);
        if (codeOf(error) === "not-found") unplaced.push(check.serviceId);
        untaken.push({ about: `check ${id}`, text: messageOf(error) });
      }
    }
    if (JSON.stringify(untaken) !== JSON.stringify(this.untaken)) {
      this.untaken = untaken;
      // The complaints changed, and they travel with the list.
      this.ring();
    }
    // A service may have come while other checks were registered, and nobody waited for it then.
    if (unplaced.some((id) => agent.services().has(id))) this.ring();
    return unplaced.length > 0;
  }

  /** Waits for a change, a settling file, a service that a check waits for, or the time to look again. */
  private async nextBell(signal: AbortSignal, unplaced: boolean): Promise<void> {
    const { clock, agent } = this.machine;
    const now = clock.monotonic();
    let waitMs = LOOK_AGAIN_MS;
    for (const file of this.known.values())
      if (file.settlesAt !== undefined) waitMs = Math.min(waitMs, Math.max(1, file.settlesAt - now));
    const over = new AbortController();
    let timer: Timer | undefined;
    await new Promise<void>((resolve) => {
      this.wake = resolve;
      if (this.rung || signal.aborted) return resolve();
      timer = clock.after(waitMs, resolve);
      if (unplaced)
        agent.changed(agent.version(), over.signal).then(
          () => resolve(),
          () => {},
        );
    });
    this.wake = undefined;
    timer?.cancel();
    over.abort(new Error("no longer waited for"));
  }

  /** Returns when nothing rang for a while. */
  private async quiet(clock: Clock, signal: AbortSignal): Promise<void> {
    const end = clock.monotonic() + LONGEST_WAIT_MS;
    while (this.rung && !this.again && !signal.aborted && clock.monotonic() < end) {
      this.rung = false;
      let timer: Timer | undefined;
      await new Promise<void>((resolve) => {
        timer = clock.after(QUIET_MS, resolve);
        this.wake = () => {
          if (this.again || signal.aborted) resolve();
        };
      });
      this.wake = undefined;
      timer?.cancel();
    }
  }
}

function stampOf(info: FileInfo): string {
  return `${info.identity}:${info.size}:${info.modifiedMs}`;
}

function hasAny(definitions: Definitions): boolean {
  const { services, checks, overrides = [] } = definitions;
  return services.length > 0 || checks.length > 0 || overrides.length > 0;
}
