// What was read of ZooKeeper and still holds: each znode is asked for once and again only after its watch rang.
import { codeOf } from "../../base/error.ts";
import type { Znode, ZooKeeper } from "../../base/zookeeper.ts";

type Reader = Pick<ZooKeeper, "children" | "get">;

interface Kept<T> {
  reading: Promise<T> | undefined;
  used: boolean;
}

/** Reads through to the server what is not known or no longer true. What fails is thrown and asked for anew the next time. */
export class Znodes {
  readonly #zk: Reader;
  readonly #ring: () => void;
  readonly #names = new Map<string, Kept<readonly string[] | undefined>>();
  readonly #data = new Map<string, Kept<Znode | undefined>>();

  /** @param ring called whenever something that was read is no longer true */
  constructor(zk: Reader, ring: () => void) {
    this.#zk = zk;
    this.#ring = ring;
  }

  /** Names below a znode; undefined where it is not there. */
  names(path: string): Promise<readonly string[] | undefined> {
    return this.#read(this.#names, path, (changed) => this.#zk.children(path, changed));
  }

  get(path: string): Promise<Znode | undefined> {
    return this.#read(this.#data, path, (changed) => this.#zk.get(path, changed));
  }

  /** Forgets what this client itself has changed: its watch may ring a moment later. */
  forget(path: string): void {
    this.#names.delete(path);
    this.#data.delete(path);
  }

  /** Lists again what was listed, and forgets what is not so any more or may not be listed: no watch rings for who may not read. */
  async probe(): Promise<void> {
    await inParts([...this.#names], async ([path, { reading }]) => {
      if (reading === undefined) return;
      let same = true;
      try {
        const [before, now] = [await reading, await this.#zk.children(path)];
        same = JSON.stringify(before?.toSorted()) === JSON.stringify(now?.toSorted());
      } catch (error) {
        // Of a lost connection others hear as well.
        same = codeOf(error) !== "not-allowed";
      }
      if (same || this.#names.get(path)?.reading !== reading) return;
      this.forget(path);
      this.#ring();
    });
  }

  /** Forgets what was not asked for since the last call. */
  sweep(): void {
    for (const map of [this.#names, this.#data] as Map<string, Kept<unknown>>[])
      for (const [path, kept] of map) {
        if (!kept.used) map.delete(path);
        kept.used = false;
      }
  }

  #read<T>(map: Map<string, Kept<T>>, path: string, ask: (changed: () => void) => Promise<T>): Promise<T> {
    const known = map.get(path);
    if (known?.reading !== undefined) {
      known.used = true;
      return known.reading;
    }
    const kept: Kept<T> = known ?? { reading: undefined, used: true };
    kept.used = true;
    map.set(path, kept);
    const reading = ask(() => {
      if (kept.reading === reading) kept.reading = undefined;
      if (map.get(path) === kept) this.#ring();
    });
    kept.reading = reading;
    // Whoever waits for it hears of the failure.
    reading.catch(() => {
      if (kept.reading === reading) kept.reading = undefined;
    });
    return reading;
  }
}

/** Asks for many at once, but not for all of thousands. In order. */
export async function inParts<T, R>(items: readonly T[], ask: (item: T) => Promise<R>): Promise<readonly R[]> {
  const PART = 200;
  const found: R[] = [];
  for (let at = 0; at < items.length; at += PART)
    found.push(...(await Promise.all(items.slice(at, at + PART).map(ask))));
  return found;
}
