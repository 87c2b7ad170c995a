// One hosts file on the disk: read, compared, written whole or in place; nothing is written when nothing changed.
import type { Disk } from "../../base/disk.ts";
import { TrilithError } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import { blockOf, linesIn, newlineOf, type Parts, putTogether, takeApart } from "./block.ts";
import type { HostsRule } from "./config.ts";

export interface FileMachine {
  readonly disk: Pick<Disk, "info" | "readText" | "realPath" | "replace" | "overwrite">;
  readonly log: Log;
}

/** What is in the file beside, and of, Trilith. */
export interface Found {
  /** Others' lines. */
  readonly others: string;
  /** The lines that stand in the block, or in the file that is Trilith's. */
  readonly lines: readonly string[];
}

const OWN_FILE = "# Written by Trilith: changes in here are lost.";
/** Errors of a file whose place cannot be taken by another: mounted by itself, in a folder that may not be written, on another disk. */
const STAYS = new Set(["EBUSY", "EXDEV", "EACCES", "EPERM", "EROFS"]);
const TRIES = 5;
/** The last write of each path that is under way: whoever reads a file before another has written it would write that one's block away. */
const turns = new Map<string, Promise<void>>();

export class HostsFile {
  readonly #rule: Pick<HostsRule, "path" | "block" | "inPlace">;
  readonly #machine: FileMachine;
  /** The block as this life wrote it. */
  #written: string | undefined;
  /** How the last write went, for the state. */
  #way: "replaced" | "in place" | undefined;

  constructor(rule: Pick<HostsRule, "path" | "block" | "inPlace">, machine: FileMachine) {
    this.#rule = rule;
    this.#machine = machine;
  }

  get way(): string {
    return this.#way === "in place" ? " (in place)" : "";
  }

  /** @throws what the disk throws; `conflict` where a file that shall be Trilith's is somebody's */
  async read(): Promise<Found> {
    const text = await this.#text();
    const { before, after, block } = this.#parts(text ?? "");
    const own = this.#rule.block === undefined ? block?.split("\n").slice(1, -1) : block && linesIn(block);
    return { others: before + after, lines: own || [] };
  }

  /** Brings the file to these lines; undefined = takes everything of Trilith's out. @returns whether it was written */
  async write(lines: readonly string[] | undefined): Promise<boolean> {
    const { path } = this.#rule;
    const turn = (turns.get(path) ?? Promise.resolve()).then(() => this.#bring(lines));
    const over = turn.then(
      () => {},
      () => {},
    );
    turns.set(path, over);
    try {
      return await turn;
    } finally {
      if (turns.get(path) === over) turns.delete(path);
    }
  }

  async #bring(lines: readonly string[] | undefined): Promise<boolean> {
    const { path, block: name } = this.#rule;
    for (let tries = 0; tries < TRIES; tries++) {
      const text = await this.#text();
      const parts = this.#parts(text ?? "");
      const newline = newlineOf(text ?? "");
      const block =
        lines === undefined
          ? undefined
          : name === undefined
            ? [OWN_FILE, ...lines, ""].join("\n")
            : blockOf(name, lines, newline);
      const wanted = name === undefined ? (block ?? "") : putTogether(parts, block);
      if (wanted === (text ?? "")) {
        this.#written = block;
        return false;
      }
      this.#tellStrangers(parts);
      if (await this.#put(wanted, text)) {
        this.#written = block;
        return true;
      }
      // Somebody else wrote it in between.
    }
    throw new TrilithError("conflict", `${path} is being changed by somebody else all the time`);
  }

  /** Says what others did to what is Trilith's. */
  #tellStrangers({ block, strays }: Parts): void {
    const { path } = this.#rule;
    const { log } = this.#machine;
    if (strays > 0) log.warn(`${path}: ${strays} marks or blocks of Trilith's that belong to nothing are taken out`);
    if (this.#written === undefined || block === this.#written) return;
    if (block === undefined) log.warn(`${path}: what Trilith had written is gone, and is written anew`);
    else log.warn(`${path}: what Trilith had written was changed by hand, and is written anew`);
  }

  async #text(): Promise<string | undefined> {
    const { path } = this.#rule;
    try {
      return await this.#machine.disk.readText(path);
    } catch (error) {
      if ((error as { code?: unknown }).code === "ENOENT") return undefined;
      throw error;
    }
  }

  #parts(text: string): Parts {
    const { path, block: name } = this.#rule;
    if (name !== undefined) return takeApart(text, name);
    if (text.trim() === "") return { before: "", after: "", block: undefined, strays: 0 };
    if (!text.startsWith(OWN_FILE))
      throw new TrilithError(
        "conflict",
        `${path} has others' lines and was not touched: let Trilith have a block of it ("block": true), or another file`,
      );
    return { before: "", after: "", block: text, strays: 0 };
  }

  /** @returns false where it is not what was read any more */
  async #put(wanted: string, expected: string | undefined): Promise<boolean> {
    const { path, inPlace } = this.#rule;
    const { disk } = this.#machine;
    const info = await disk.info(path);
    if (info !== undefined && !info.isFile) throw new TrilithError("invalid", `${path} is no file`);
    const overwrite = async (): Promise<boolean> => {
      this.#way = "in place";
      return await disk.overwrite(path, wanted, expected ?? "");
    };
    if (inPlace && expected !== undefined) return await overwrite();
    try {
      if ((await this.#text()) !== expected) return false;
      // A link stays one, and leads to what is written.
      await disk.replace((await disk.realPath(path)) ?? path, wanted, info?.mode);
      this.#way = "replaced";
      return true;
    } catch (error) {
      if (expected === undefined || !STAYS.has(String((error as { code?: unknown }).code))) throw error;
      return await overwrite();
    }
  }
}
