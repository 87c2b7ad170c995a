// The source "flat": lists of others' endpoints in files, read when they change; a list is hearsay, so what vanishes passes the guard.
import { Bell, Bells, folderOf } from "../../base/bells.ts";
import type { Clock } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import type { Log } from "../../base/log.ts";
import type { Directory, View } from "../../contracts/directory.ts";
import { lastKnown } from "../../contracts/second-hand.ts";
import type { Source, SourceHealth, SourceList } from "../../contracts/source.ts";
import { healthOf, keysOf, toldBy } from "../../contracts/source-health.ts";
import { byPlace, reasonsFor, type WholeListParts, wholeLists } from "../../contracts/whole-list.ts";
import { goneKeyOf, type Registration } from "../../model/instance.ts";
import type { FlatConfig } from "./config.ts";
import { FlatFiles } from "./files.ts";
import { faultText, fileOf, isAt, registrationsOf, SOURCE } from "./registrations.ts";

export interface FlatMachine {
  readonly clock: Clock;
  readonly disk: Pick<Disk, "info" | "list" | "readBytes" | "bell">;
  readonly log: Log;
  readonly directory: Pick<Directory, "view" | "ready" | "changed">;
  /** This host's node. */
  readonly node: string;
}

/** Changes are read after so long: editors and `mv` make several in a row. */
const QUIET_MS = 20;
/** Where the system tells nothing (missing folders, network file systems, targets of links) files are looked at so often. */
const LOOK_AGAIN_MS = 5000;

export class FlatSource implements Source {
  readonly name: string = SOURCE;
  readonly #config: FlatConfig;
  readonly #machine: FlatMachine;
  readonly #files: FlatFiles;
  #last: ReadonlyMap<string, Registration> = new Map();
  /** What an earlier life stated, while no file could be looked at in this one. */
  #remembered: ReadonlyMap<string, Registration> = new Map();
  #looked = false;

  constructor(config: FlatConfig, machine: FlatMachine) {
    this.#config = config;
    this.#machine = machine;
    this.#files = new FlatFiles(config, machine);
  }

  state(): SourceHealth {
    const { files, troubles } = this.#files;
    const read = files.filter(({ lists }) => lists !== undefined).length;
    const where = this.#config.files.map(({ path }) => path).join(", ");
    if (!this.#looked) return { ok: true, begun: false, text: `not started: ${where}` };
    const told = toldBy(this.#last, fileOf);
    const missing = new Set(troubles.map(({ path }) => path));
    return healthOf(
      `${this.#last.size} ${this.#last.size === 1 ? "endpoint" : "endpoints"} in ${read} ${read === 1 ? "file" : "files"} of ${where}`,
      [
        ...troubles.map(({ path, text }) => ({
          ...{ name: path, text: `${text}${this.#staying(path)}` },
          tells: () => keysOf(this.#last, (r) => isAt(fileOf(r), path)),
        })),
        ...files
          .filter(({ path }) => !missing.has(path))
          .map((file) => ({
            ...{ name: file.path, text: file.fault === undefined ? "" : faultText(file) },
            tells: () => told(file.path),
          })),
      ],
      files.flatMap(({ path, lists }) => (lists?.faults ?? []).map((text) => `${path}: ${text}`)),
    );
  }

  /** What is said of what stands although its path is not there. */
  #staying(path: string): string {
    const count = [...this.#last.values()].filter((r) => isAt(fileOf(r), path)).length;
    if (count === 0) return "";
    return ` (${count === 1 ? "the endpoint that it listed stays" : `the ${count} endpoints that it listed stay`})`;
  }

  async *watch(signal: AbortSignal): AsyncIterable<SourceList> {
    if (signal.aborted) return;
    const { clock, directory, node } = this.#machine;
    const isConfigured = (r: Registration): boolean => this.#config.files.some(({ path }) => isAt(fileOf(r), path));
    const parts: WholeListParts = {
      ...{ clock, directory, scopes: ["nodes", "services"] },
      earlier: { source: SOURCE, node, isConfigured },
      begin: (view, ring, over) => {
        this.#remembered =
          this.#last.size > 0 ? this.#last : byPlace(lastKnown(view, SOURCE, node).filter(isConfigured));
        this.#looked = false;
        return this.#read(ring, over);
      },
      compose: (view) => (this.#looked ? this.#compose(view) : undefined),
    };
    yield* wholeLists(parts, signal);
  }

  async #read(changed: () => void, signal: AbortSignal): Promise<void> {
    const { clock, disk } = this.#machine;
    const stale = new Bell();
    const bells = new Bells(this.#machine, stale.ring);
    signal.addEventListener("abort", stale.ring, { once: true });
    try {
      while (!signal.aborted) {
        const folders = new Set<string>();
        for (const { path } of this.#config.files) {
          const info = await disk.info(path).catch(() => undefined);
          folders.add(info?.isDirectory ? path : folderOf(path));
        }
        // Before reading, so that nothing is missed between the two.
        await bells.set([...folders]);
        const nextMs = await this.#files.look();
        this.#looked = true;
        changed();
        const again = clock.after(Math.min(nextMs ?? LOOK_AGAIN_MS, LOOK_AGAIN_MS), stale.ring);
        await stale.heard();
        again.cancel();
        if (!signal.aborted) await clock.sleep(QUIET_MS, signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      bells.close();
      this.#looked = false;
    }
  }

  #compose(view: View): SourceList {
    const { clock } = this.#machine;
    const { files, troubles } = this.#files;
    const { list: told, complaints, replaced } = registrationsOf(files, view);
    if (this.#looked) {
      // What cannot be read, or is not whole, may still say what it said in an earlier life; of all else the files are what counts.
      const unread = [...troubles, ...files.filter(({ lists }) => lists === undefined)].map(({ path }) => path);
      const left = [...this.#remembered].filter(([, r]) => unread.some((path) => isAt(fileOf(r), path)));
      if (left.length < this.#remembered.size) {
        this.#last = new Map([...this.#remembered, ...this.#last]);
        this.#remembered = new Map(left);
      }
    }
    const list = new Map([...this.#remembered, ...told]);
    for (const key of replaced) list.delete(key);
    const gone = reasonsFor(this.#last, list, (r) => ({
      ...(replaced.has(goneKeyOf(r))
        ? { code: "replaced" as const, text: "it is known at first hand", confirmed: true }
        : { code: "missing" as const, text: `${fileOf(r)} no longer lists it`, confirmed: false }),
      atMs: clock.now(),
    }));
    this.#last = list;
    return {
      list: [...list.values()],
      authority: "second-hand",
      complaints: [
        ...troubles.map(({ path, text }) => ({ about: path, text: `${text}${this.#staying(path)}` })),
        ...complaints,
      ],
      ...(gone.size === 0 ? {} : { gone }),
    };
  }
}
