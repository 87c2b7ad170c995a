// The files behind the rules: what each last said whole; what may be half-written is waited for, what cannot be read keeps its last good version.
import type { Clock } from "../../base/clock.ts";
import type { Disk, FileInfo } from "../../base/disk.ts";
import { InputError, messageOf } from "../../base/error.ts";
import type { FlatConfig, FlatRule } from "./config.ts";
import { type Format, formatOf, hasEnd, isBlank, type Lists, parseLists } from "./parse.ts";

/** A file as it counts. */
export interface FlatFile {
  readonly path: string;
  readonly rule: FlatRule;
  /** Undefined where it never said anything that could be read. */
  readonly lists: Lists | undefined;
  /** What is wrong with it, told once it is certain. */
  readonly fault: string | undefined;
}

/** A path of a rule that cannot be looked at, or is not there; what is known of it stands. */
export interface Trouble {
  readonly path: string;
  readonly text: string;
}

interface Known extends FlatFile {
  readonly identity: string;
  readonly stamp: string;
  /** Of what `pending` is, or else of `lists`; undefined where the file is gone or cannot be read. */
  readonly text: string | undefined;
  /** What waits to count, and from when on (monotonic). */
  readonly pending:
    | { readonly lists: Lists | undefined; readonly fault: string | undefined; readonly atMs: number }
    | undefined;
}

export interface FilesMachine {
  readonly clock: Clock;
  readonly disk: Pick<Disk, "info" | "list" | "readBytes">;
}

/** An empty file, or one whose last line has no end, is more often one that is being written than a list as it is meant. */
const CUT_SETTLE_MS = 3000;
/** File times are coarse: what was changed less long ago is read again although its time is the same. */
const COARSE_MS = 2000;
const LARGEST_BYTES = 16 << 20;
/** Of a file that is not there: whatever comes is read anew. */
const UNSEEN = { identity: "", stamp: "", text: undefined } as const;
const EMPTY: Lists = { services: new Map(), faults: [] };

/** Reads what has changed, each time it is asked. */
export class FlatFiles {
  readonly #config: FlatConfig;
  readonly #machine: FilesMachine;
  #known = new Map<string, Known>();
  #troubles: readonly Trouble[] = [];
  /** Rules of whose path there is nothing, or that cannot be looked at, since when (monotonic). */
  readonly #missingSince = new Map<FlatRule, number>();

  constructor(config: FlatConfig, machine: FilesMachine) {
    this.#config = config;
    this.#machine = machine;
  }

  /** In the order of the rules, then of the names. */
  get files(): readonly FlatFile[] {
    return [...this.#known.values()];
  }

  get troubles(): readonly Trouble[] {
    return this.#troubles;
  }

  /** @returns in how many milliseconds something settles; undefined where nothing waits */
  async look(): Promise<number | undefined> {
    const after = new Map<string, Known>();
    const troubles: Trouble[] = [];
    const waits: number[] = [];
    for (const rule of this.#config.files) {
      const before = [...this.#known.values()].filter((file) => file.rule === rule);
      let paths: readonly string[] | undefined;
      let text = "there is no such file or folder";
      try {
        paths = await this.#pathsOf(rule);
      } catch (error) {
        text = `cannot be looked at: ${messageOf(error)}`;
      }
      if (paths === undefined) {
        const waitMs = this.#missing(rule, before.length > 0);
        if (waitMs > 0) waits.push(waitMs);
        else troubles.push({ path: rule.path, text });
        // What is taken away by mistake is not what is meant: an empty list would say that there is nothing any more.
        for (const file of before) after.set(file.path, { ...file, ...UNSEEN, pending: undefined });
        continue;
      }
      this.#missingSince.delete(rule);
      // What was there and is not now may be about to be replaced.
      for (const path of new Set([...paths, ...before.map((file) => file.path)])) {
        if (after.has(path)) continue;
        const file = await this.#read(path, rule, this.#known.get(path));
        if (file !== undefined) after.set(path, file);
      }
    }
    this.#known = after;
    this.#troubles = troubles;
    const now = this.#machine.clock.monotonic();
    for (const { pending } of after.values()) if (pending !== undefined) waits.push(pending.atMs - now);
    return waits.length === 0 ? undefined : Math.max(1, Math.min(...waits));
  }

  /** For how long the path of a rule may still come back before it is missed; 0 = it is. */
  #missing(rule: FlatRule, isKnown: boolean): number {
    const now = this.#machine.clock.monotonic();
    const since = this.#missingSince.get(rule) ?? (isKnown ? now : Number.NEGATIVE_INFINITY);
    this.#missingSince.set(rule, since);
    return Math.max(0, since + this.#config.settleMs - now);
  }

  /** The file itself, or those of a folder, hidden ones and editors' copies aside; undefined where there is nothing. */
  async #pathsOf({ path }: FlatRule): Promise<readonly string[] | undefined> {
    const { disk } = this.#machine;
    const info = await disk.info(path);
    if (info === undefined) return undefined;
    if (!info.isDirectory) return [path];
    const names = await disk.list(path);
    return names
      .filter((name) => !/^[.#]|[~#]$|\.(tmp|swp|bak|part|new)$/i.test(name))
      .map((name) => `${path}/${name}`);
  }

  async #read(path: string, rule: FlatRule, before: Known | undefined): Promise<Known | undefined> {
    const { disk, clock } = this.#machine;
    let info: FileInfo | undefined;
    let bytes: Uint8Array;
    try {
      info = await disk.info(path);
      if (info === undefined) return this.#gone(before);
      // Folders, sockets and pipes are no lists.
      if (!info.isFile) return undefined;
      const old = clock.now() - (info.changedMs ?? info.modifiedMs) > COARSE_MS;
      if (before !== undefined && before.pending === undefined && before.stamp === stampOf(info) && old) return before;
      if (info.size > LARGEST_BYTES) return unread(`is larger than ${LARGEST_BYTES >> 20} MiB and was not read`);
      bytes = await disk.readBytes(path);
      const again = await disk.info(path);
      if (again === undefined) return this.#gone(before);
      // It was written meanwhile: its time counts from now on.
      if (stampOf(again) !== stampOf(info)) info = again;
    } catch (error) {
      return unread(`cannot be read: ${messageOf(error)}`);
    }
    return this.#taken(path, rule, info, bytes, before);

    function unread(fault: string): Known {
      const lists = before?.lists;
      return { path, rule, lists, fault, identity: "", stamp: "", text: undefined, pending: undefined };
    }
  }

  #taken(path: string, rule: FlatRule, info: FileInfo, bytes: Uint8Array, before: Known | undefined): Known {
    const { clock } = this.#machine;
    const now = clock.monotonic();
    const [stamp, { identity }] = [stampOf(info), info];
    const text = Buffer.from(bytes).toString("utf8");
    const format = rule.format ?? formatOf(path);
    if (before !== undefined && before.text === text) {
      if (before.pending === undefined) return { ...before, identity, stamp };
      // Still being written: the time counts anew.
      if (before.stamp !== stamp)
        return {
          ...before,
          identity,
          stamp,
          pending: { ...before.pending, atMs: now + this.#settleMs(text, format, before) },
        };
      if (now < before.pending.atMs) return before;
      return counted({ ...before, identity, stamp });
    }
    const { lists, fault } = parsed(text, format, rule);
    const file: Known = {
      ...{ path, rule, identity, stamp, text, lists: before?.lists, fault: before?.fault },
      pending: { lists, fault, atMs: now + this.#settleMs(text, format, before) },
    };
    if (fault === undefined && this.#isWhole(text, format, info, before)) return counted(file);
    return file;
  }

  #settleMs(text: string, format: Format, before: Known | undefined): number {
    const { settleMs } = this.#config;
    const knew = (before?.lists?.services.size ?? 0) > 0;
    const isCut = isBlank(text, format) || (!hasEnd(format) && !text.endsWith("\n"));
    return isCut && knew ? Math.max(CUT_SETTLE_MS, settleMs) : settleMs;
  }

  /** True where it cannot be half-written: it says its end, was written elsewhere and moved here, or was not touched for a while. */
  #isWhole(text: string, format: Format, info: FileInfo, before: Known | undefined): boolean {
    const { clock } = this.#machine;
    if (clock.now() - Math.max(info.modifiedMs, info.changedMs ?? 0) > Math.max(COARSE_MS, this.#config.settleMs))
      return true;
    if (isBlank(text, format)) return false;
    if (hasEnd(format)) return true;
    return info.identity !== before?.identity && (info.changedMs ?? 0) > info.modifiedMs;
  }

  /** A file that is not there any more has so long to come back. */
  #gone(before: Known | undefined): Known | undefined {
    if (before === undefined) return undefined;
    const now = this.#machine.clock.monotonic();
    if (before.text !== undefined || before.pending === undefined)
      return {
        ...{ ...before, ...UNSEEN },
        pending: { lists: undefined, fault: undefined, atMs: now + this.#config.settleMs },
      };
    return now < before.pending.atMs ? before : undefined;
  }
}

/** What was waited for counts; what cannot be read leaves its last good version in force. */
function counted(file: Known): Known {
  const { lists, fault } = file.pending ?? {};
  return { ...file, lists: lists ?? file.lists, fault, pending: undefined };
}

function parsed(
  text: string,
  format: Format,
  rule: FlatRule,
): { readonly lists: Lists | undefined; readonly fault: string | undefined } {
  try {
    if (isBlank(text, format)) return { lists: EMPTY, fault: undefined };
    const lists = parseLists(text, format, { port: rule.port, oneService: rule.service !== undefined });
    const [fault, ...more] = lists.faults;
    // Of a list some entries may be wrong; where nothing is right, it is none.
    if (fault !== undefined && [...lists.services.values()].every((list) => list.length === 0))
      throw new InputError(
        "",
        `nothing in it is an endpoint: ${fault}${more.length === 0 ? "" : ` (and ${more.length} more)`}`,
      );
    return { lists, fault: undefined };
  } catch (error) {
    return { lists: undefined, fault: messageOf(error) };
  }
}

function stampOf(info: FileInfo): string {
  return `${info.identity}:${info.size}:${info.modifiedMs}:${info.changedMs ?? 0}`;
}
