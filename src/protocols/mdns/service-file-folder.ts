// A folder of Avahi's service files: what its files say together, again at each change; bad files are named and the others stay.
import type { Clock, Timer } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import { messageOf } from "../../base/error.ts";
import type { Group } from "./engine.ts";
import { collide, groupOf, parseServiceFile, type ServiceFile } from "./service-file.ts";

/** What the files of a folder say at one moment. */
export interface ServiceFiles {
  /** In the order of the files' names. */
  readonly groups: readonly FileGroup[];
  /** Files that are not taken, and what was skipped in those that are: which, and why, with line and column. */
  readonly complaints: readonly { readonly about: string; readonly text: string }[];
}

export interface FileGroup {
  readonly path: string;
  readonly group: Group;
}

export interface ServiceFolder {
  /**
   * The whole list at once and after every change, until the signal. A file that cannot be read as a service file counts as half-written for a moment: what it said before stays,
   * then it goes and a complaint comes. Of two files with the same name and type the one that was there first is taken.
   */
  watch(signal: AbortSignal): AsyncIterable<ServiceFiles>;
  /** Looks again, for a host whose name has changed. */
  ring(): void;
}

export interface FolderMachine {
  readonly clock: Clock;
  readonly disk: Pick<Disk, "list" | "info" | "readBytes" | "bell">;
}

/** Changes are read after so long without another one. */
const QUIET_MS = 50;
/** A folder in which something changes for ever is read after so long all the same. */
const LONGEST_WAIT_MS = 1000;
/** What is not a service file (yet) has so long to become one. */
const SETTLE_MS = 300;
/** Where the system tells nothing (a folder that is missing, network file systems, targets of links) is looked at so often. */
const LOOK_AGAIN_MS = 5000;
const LARGEST_FILE_BYTES = 1 << 20;

interface Known {
  readonly bytes: Uint8Array;
  /** What counts: undefined for a file that says nothing (yet). */
  readonly good: ServiceFile | undefined;
  readonly fault: string | undefined;
  /** When what is there counts as it is; until then `good` is what was there before and the fault is not told. */
  readonly settlesAt: number | undefined;
}

/** Watches the *.service files of a folder. @param hostLabel the host's name without its domain, for "%h" */
export function watchServiceFiles(folder: string, machine: FolderMachine, hostLabel: () => string): ServiceFolder {
  return new Folder(folder, machine, hostLabel);
}

class Folder implements ServiceFolder {
  private readonly folder: string;
  private readonly machine: FolderMachine;
  private readonly hostLabel: () => string;
  private known: ReadonlyMap<string, Known> = new Map();
  private taken: ReadonlySet<string> = new Set();
  private rung = false;
  private wake: (() => void) | undefined;

  constructor(folder: string, machine: FolderMachine, hostLabel: () => string) {
    this.folder = folder.replace(/(.)\/+$/, "$1");
    this.machine = machine;
    this.hostLabel = hostLabel;
  }

  ring(): void {
    this.rung = true;
    this.wake?.();
  }

  async *watch(signal: AbortSignal): AsyncIterable<ServiceFiles> {
    const stop = (): void => this.ring();
    signal.addEventListener("abort", stop, { once: true });
    let bell: { close(): void } | undefined;
    let last: string | undefined;
    try {
      while (!signal.aborted) {
        this.rung = false;
        // Before reading, so that nothing is missed between the two; anew each time, because another folder may stand there now.
        const before = bell;
        bell = await this.machine.disk.bell(this.folder, stop).catch(() => undefined);
        before?.close();
        const files = await this.read();
        const text = JSON.stringify(files, (_, value) => (value instanceof Uint8Array ? [...value] : value));
        if (text !== last && !signal.aborted) {
          last = text;
          yield files;
        }
        await this.nextBell(signal);
      }
    } finally {
      signal.removeEventListener("abort", stop);
      bell?.close();
    }
  }

  /** Until something rings, a file settles or it is time to look again; then until it is quiet. */
  private async nextBell(signal: AbortSignal): Promise<void> {
    const { clock } = this.machine;
    const now = clock.monotonic();
    const settles = [...this.known.values()].flatMap(({ settlesAt }) => settlesAt ?? []);
    await this.pause(Math.max(0, Math.min(now + LOOK_AGAIN_MS, ...settles) - now), signal);
    const quietBy = clock.monotonic() + LONGEST_WAIT_MS;
    while (this.rung && !signal.aborted && clock.monotonic() < quietBy) {
      this.rung = false;
      await this.pause(QUIET_MS, signal);
    }
  }

  private pause(ms: number, signal: AbortSignal): Promise<void> {
    if (this.rung || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        timer.cancel();
        this.wake = undefined;
        resolve();
      };
      const timer: Timer = this.machine.clock.after(ms, done);
      this.wake = done;
    });
  }

  private async read(): Promise<ServiceFiles> {
    const complaints: { about: string; text: string }[] = [];
    const after = new Map<string, Known>();
    let names: readonly string[] = [];
    try {
      names = await this.machine.disk.list(this.folder);
    } catch (error) {
      complaints.push({ about: this.folder, text: `cannot be read: ${messageOf(error)}` });
      const code = (error as { code?: unknown }).code;
      // What cannot be looked at for a while stays; what is not there any more is gone.
      if (code !== "ENOENT" && code !== "ENOTDIR") for (const [path, file] of this.known) after.set(path, file);
    }
    for (const name of [...names].sort()) {
      if (!name.endsWith(".service") || name.startsWith(".")) continue;
      const path = `${this.folder}/${name}`;
      const file = await this.readFile(path, this.known.get(path));
      if (file !== undefined) after.set(path, file);
    }
    this.known = after;
    for (const [path, { fault, settlesAt, good }] of after) {
      if (fault !== undefined && settlesAt === undefined) complaints.push({ about: path, text: fault });
      for (const text of good?.warnings ?? []) complaints.push({ about: path, text });
    }
    return { groups: this.compose(complaints), complaints };
  }

  private async readFile(path: string, before: Known | undefined): Promise<Known | undefined> {
    const { disk, clock } = this.machine;
    const bad = (fault: string, bytes: Uint8Array): Known => {
      const unchanged = before?.fault === fault && Buffer.compare(before.bytes, bytes) === 0;
      if (unchanged && (before.settlesAt === undefined || clock.monotonic() >= before.settlesAt))
        return { bytes, good: undefined, fault, settlesAt: undefined };
      if (unchanged) return before;
      return { bytes, good: before?.good, fault, settlesAt: clock.monotonic() + SETTLE_MS };
    };
    try {
      const info = await disk.info(path);
      if (info === undefined || !info.isFile) return undefined;
      if (info.size > LARGEST_FILE_BYTES)
        return bad(`${path}: is larger than ${LARGEST_FILE_BYTES >> 10} KiB and was not read`, new Uint8Array());
      const bytes = await disk.readBytes(path);
      if (before !== undefined && before.fault === undefined && Buffer.compare(before.bytes, bytes) === 0)
        return before;
      try {
        return { bytes, good: parseServiceFile(bytes, path), fault: undefined, settlesAt: undefined };
      } catch (error) {
        return bad(messageOf(error), bytes);
      }
    } catch (error) {
      if ((error as { code?: unknown }).code === "ENOENT") return undefined;
      return bad(`${path}: cannot be read: ${messageOf(error)}`, new Uint8Array());
    }
  }

  /** What the good files publish on this host. */
  private compose(complaints: { about: string; text: string }[]): readonly FileGroup[] {
    const groups: FileGroup[] = [];
    const paths = [...this.known.keys()];
    const label = this.hostLabel();
    for (const path of [
      ...paths.filter((each) => this.taken.has(each)),
      ...paths.filter((each) => !this.taken.has(each)),
    ]) {
      const file = this.known.get(path)?.good;
      if (file === undefined) continue;
      try {
        const group = groupOf(file, label, path);
        const rival = groups.find(({ group: other }) => rivals(other, group));
        if (rival === undefined) groups.push({ path, group });
        else
          complaints.push({
            about: path,
            text: `${path}: publishes "${group.name}" with the same type as ${rival.path}, which was there first`,
          });
      } catch (error) {
        complaints.push({ about: path, text: messageOf(error) });
      }
    }
    this.taken = new Set(groups.map(({ path }) => path));
    return groups.sort((a, b) => (a.path < b.path ? -1 : 1));
  }
}

function rivals(a: Group, b: Group): boolean {
  return (
    a.name.toLowerCase() === b.name.toLowerCase() &&
    a.services.some((one) => b.services.some((other) => collide(one, other)))
  );
}
