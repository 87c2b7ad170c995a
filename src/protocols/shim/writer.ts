// Writes the hook's table: what the composer holds, as soon as its addresses are kept for good; the table of an earlier life stays while it is right.
import type { Clock } from "../../base/clock.ts";
import { codeOf, messageOf, TrilithError } from "../../base/error.ts";
import type { Magic } from "../../contracts/magic.ts";
import type { HookTable, TableService } from "../../wire/hook-table.ts";
import { createHookTableEncoder, encodeHookTable } from "../../wire/hook-table-encode.ts";
import type { Composer } from "./composer.ts";
import type { HostView } from "./host.ts";
import type { Place } from "./place.ts";

/** What stands in the file. */
export interface Written {
  /** 0 = nothing of ours yet. */
  readonly generation: number;
  readonly services: number;
  readonly bytes: number;
  readonly atMs: number;
}

/** One place's table. One caller at a time. */
export class TableWriter {
  readonly #place: Place;
  readonly #magic: Magic;
  readonly #composer: Composer;
  readonly #domain: string;
  readonly #host: HostView;
  readonly #clock: Pick<Clock, "now" | "yield">;
  readonly #encoder = createHookTableEncoder();
  /** The table of an earlier life, until it is taken over or replaced. */
  #earlier: HookTable | undefined;
  #identity = "";
  #written: Written;
  /** Why the earlier table stays although the directory says something else. */
  waiting: string | undefined;

  constructor(
    place: Place,
    parts: {
      readonly magic: Magic;
      readonly composer: Composer;
      readonly domain: string;
      readonly host: HostView;
      readonly clock: Pick<Clock, "now" | "yield">;
    },
  ) {
    this.#place = place;
    this.#magic = parts.magic;
    this.#composer = parts.composer;
    this.#domain = parts.domain;
    this.#host = parts.host;
    this.#clock = parts.clock;
    this.#earlier = place.adopted;
    this.#written = {
      generation: place.adopted?.generation ?? 0,
      services: place.adopted?.services.length ?? 0,
      bytes: 0,
      atMs: place.adopted?.writtenAtMs ?? 0,
    };
  }

  get written(): Written {
    return this.#written;
  }

  /** True while the file has nothing of this life. */
  get unwritten(): boolean {
    return this.#identity === "";
  }

  /** True where somebody took the file away or put another one there, or this host has another address. */
  async isOutdated(): Promise<boolean> {
    const moved = await this.#host.refresh();
    return !this.unwritten && (moved || (await this.#place.identity()) !== this.#identity);
  }

  /**
   * Writes the table; what cannot be given an address for good is left out and told afterwards. `listed`: the sources have told what runs, so that a service without backends has none; before, the table of an earlier life
   * is believed where it knows some. @throws as `MappedFile.replace` and `Magic.kept`
   */
  async write(listed: boolean): Promise<void> {
    let unkept: TrilithError | undefined;
    const entries = this.#composer.unkept();
    try {
      await this.#magic.kept();
      this.#composer.keep(entries);
    } catch (error) {
      // Those whose addresses are known for good are written all the same.
      unkept = new TrilithError(
        codeOf(error),
        `new services get no magic addresses, since these cannot be written down for good: ${messageOf(error)}`,
        error,
      );
    }
    await this.#write(this.#composer.table(), listed);
    if (unkept !== undefined) throw unkept;
  }

  async #write(services: readonly TableService[], listed: boolean): Promise<void> {
    await this.#host.refresh();
    const { now: host } = this.#host;
    const { v4, v6 } = this.#magic.range;
    const earlier = this.#earlier;
    this.waiting = undefined;
    if (earlier !== undefined && !listed && loses(earlier, services)) {
      this.waiting = "the table of the last run stays until the sources have told what runs";
      return;
    }
    const table: HookTable = {
      generation: this.#written.generation + 1,
      writtenAtMs: this.#clock.now(),
      superseded: false,
      v4: { base: v4.base, bits: v4.bits },
      v6: { prefix: v6.prefix, bits: v6.bits },
      domain: this.#domain,
      ...(host === undefined ? {} : { host }),
      services,
    };
    if (earlier !== undefined && sameTable(earlier, table)) {
      // Programs have it mapped, and nothing in it is wrong.
      this.#earlier = undefined;
      this.#identity = await this.#place.identity();
      return;
    }
    const bytes = await this.#encoder.encode(table, () => this.#clock.yield());
    await this.#place.file.replace(bytes);
    this.#earlier = undefined;
    this.#identity = await this.#place.identity();
    this.#written = {
      generation: table.generation,
      services: services.length,
      bytes: bytes.length,
      atMs: table.writtenAtMs,
    };
  }
}

/** True where a service would go or lose its last backend. */
function loses(earlier: HookTable, services: readonly TableService[]): boolean {
  const now = new Map(services.map(({ subject, backends }) => [subject, backends.length]));
  return earlier.services.some(({ subject, backends }) => backends.length > 0 && (now.get(subject) ?? 0) === 0);
}

function sameTable(earlier: HookTable, table: HookTable): boolean {
  if (earlier.superseded) return false;
  const { generation, writtenAtMs } = table;
  return Buffer.compare(encodeHookTable({ ...earlier, generation, writtenAtMs }), encodeHookTable(table)) === 0;
}
