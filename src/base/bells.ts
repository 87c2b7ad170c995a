// Bells: rung by many, heard by one; and those on folders, of which some are not there yet, rung when something in them may have changed.
import type { Disk } from "./disk.ts";
import { messageOf } from "./error.ts";
import type { Log } from "./log.ts";

export interface BellsMachine {
  readonly disk: Pick<Disk, "info" | "bell">;
  readonly log: Pick<Log, "debug">;
}

/** The folder that a path lies in: a file is watched through it, because replacing a file makes another one. */
export function folderOf(path: string): string {
  const at = path.replace(/\/+$/, "").lastIndexOf("/");
  return at === -1 ? "." : at === 0 ? "/" : path.slice(0, at);
}

/** One bell per folder that exists; folders that appear later get theirs at the next look. */
export class Bells {
  private readonly machine: BellsMachine;
  private readonly ring: () => void;
  private readonly open = new Map<string, { readonly identity: string; readonly bell: { close(): void } }>();
  private closed = false;

  constructor(machine: BellsMachine, ring: () => void) {
    this.machine = machine;
    this.ring = ring;
  }

  async set(folders: readonly string[]): Promise<void> {
    const { disk, log } = this.machine;
    for (const [folder, { bell }] of this.open)
      if (!folders.includes(folder)) {
        bell.close();
        this.open.delete(folder);
      }
    for (const folder of folders) {
      const info = await disk.info(folder).catch(() => undefined);
      const held = this.open.get(folder);
      const identity = info?.isDirectory ? info.identity : undefined;
      if (held !== undefined && held.identity === identity) continue;
      held?.bell.close();
      this.open.delete(folder);
      if (identity === undefined || this.closed) continue;
      try {
        const bell = await disk.bell(folder, this.ring);
        if (this.closed) bell.close();
        else this.open.set(folder, { identity, bell });
      } catch (error) {
        log.debug(`${folder} cannot be watched and is looked at now and then: ${messageOf(error)}`);
      }
    }
  }

  close(): void {
    this.closed = true;
    for (const { bell } of this.open.values()) bell.close();
    this.open.clear();
  }
}

/** Rung from anywhere, heard in one place: many rings before it is listened to are one. */
export class Bell {
  #rung = false;
  #wake: (() => void) | undefined;

  readonly ring = (): void => {
    this.#rung = true;
    this.#wake?.();
  };

  /** Resolves once it has rung since the last time. */
  async heard(): Promise<void> {
    if (!this.#rung)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    this.#wake = undefined;
    this.#rung = false;
  }
}
