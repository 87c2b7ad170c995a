// Writes into a store that others write to, as well: evaluated upon what is seen, expecting it to stand, and evaluated again where it does not.
import { messageOf, TrilithError, wrap } from "../base/error.ts";
import { jitter } from "../base/random.ts";
import type { Written } from "../contracts/directory.ts";
import type { Commit } from "../contracts/storage.ts";
import type { Reason } from "../model/reason.ts";
import { type Change, type Expect, idOfKey, keyOf, nodeOfKey } from "../model/record.ts";
import { evaluate } from "./evaluate.ts";
import type { Shown } from "./shown.ts";
import type { Tables } from "./tables.ts";
import { mustFit, type WritingGround } from "./writing.ts";

/** An unknown outcome is asked about again so often before it is handed out. */
const UNKNOWN_RETRIES = 4;
const RETRY_FIRST_MS = 50;
/** Somebody else wrote the same records in between so often: give up. */
const CONTENTION_RETRIES = 50;

/**
 * What others put on a node, service or session while it was being removed: it came first, but was not seen in time. None can come later, as
 * whoever puts something on a record expects that record to be there.
 */
function orphansOf(tables: Tables, changes: readonly Change[]): Change[] {
  const orphans = new Map<string, Change>();
  const add = (table: "service" | "check" | "kept", key: string, why: Reason | undefined): void => {
    const change: Change = { op: "delete", table, key };
    orphans.set(`${table}\u0000${key}`, why === undefined ? change : { ...change, why });
  };
  for (const change of changes) {
    if (change.op !== "delete" || tables.get(change.table, change.key) !== undefined) continue;
    const { table, key, why } = change;
    if (table === "node") {
      for (const { node, id } of tables.list("service", keyOf.ofNode(key)))
        add("service", keyOf.service(node, id), why);
      for (const { node, id } of tables.list("check", keyOf.ofNode(key))) add("check", keyOf.check(node, id), why);
    } else if (table === "service")
      for (const { node, id } of tables.checksAbout(nodeOfKey(key), idOfKey(key)))
        add("check", keyOf.check(node, id), why);
    else if (table === "session")
      for (const { kind, id, session } of tables.list("kept"))
        if (session === key) add("kept", keyOf.kept(kind, id), why);
  }
  return [...orphans.values()];
}

/** What writes into a shared store need besides. */
export interface SharedGround extends WritingGround {
  /** The largest number of changes that one write may hold. */
  readonly maxChanges: number;
  /** Aborted when the directory ends. */
  readonly life: AbortSignal;
  /** As `Directory.barrier`. */
  barrier(signal?: AbortSignal): Promise<unknown>;
}

/** The writes of a shared store. */
export class SharedWrites {
  readonly #ground: SharedGround;
  readonly #shown: Shown;

  constructor(ground: SharedGround) {
    this.#ground = ground;
    this.#shown = ground.shown;
  }

  /** As `Directory.write`. */
  async write(changes: readonly Change[], expect: readonly Expect[], signal?: AbortSignal): Promise<Written> {
    /** True once the view is known to hold everything that was acknowledged before this write began. */
    let caughtUp = false;
    const catchUp = async (): Promise<void> => {
      await this.#ground.barrier(signal);
      caughtUp = true;
    };
    for (let tries = 0; ; tries++) {
      const id = this.#ground.random.uuid();
      let found: ReturnType<typeof evaluate>;
      try {
        found = evaluate(this.#shown.seen, changes, expect, id, this.#ground.clock.now(), true);
      } catch (error) {
        if (caughtUp) throw error;
        await catchUp();
        continue;
      }
      if (found.kind === "failed") {
        if (caughtUp) return { result: "expectation-failed" };
        await catchUp();
        continue;
      }
      if (found.kind === "nothing") {
        if (caughtUp || found.assumed.length === 0) {
          this.#ground.spared.add();
          return { result: "written", index: this.#shown.seen.index };
        }
        await catchUp();
        continue;
      }
      const assumed = found.assumed.filter(
        ({ table, key }) => !expect.some((each) => each.table === table && each.key === key),
      );
      const tooLarge =
        found.changes.length > this.#ground.storage.maxChanges ||
        expect.length + assumed.length > this.#ground.storage.maxChanges;
      if (tooLarge && found.cascaded.length > 0 && changes.length <= this.#ground.maxChanges) {
        // A whole node does not fit: its parts go first, each piece whole.
        const piece = Math.max(1, Math.floor(this.#ground.maxChanges / 2));
        for (let at = 0; at < found.cascaded.length; at += piece) {
          const written = await this.write(found.cascaded.slice(at, at + piece), [], signal);
          if (written.result === "unknown") return written;
        }
        continue;
      }
      mustFit(this.#ground.storage, found.changes);
      const outcome = await this.#commit({ id, changes: found.changes, expect: [...expect, ...assumed] }, signal);
      if (outcome.result === "unknown") return outcome;
      if (outcome.result === "written") {
        this.#ground.commits.add();
        await this.#shown.reached(outcome.index, signal);
        const orphans = orphansOf(this.#shown.seen, found.changes);
        if (orphans.length > 0) await this.write(orphans, [], signal);
        return outcome;
      }
      // The caller's own expectation, or only what was taken for granted: the view tells once it has caught up.
      if (tries >= CONTENTION_RETRIES)
        throw new TrilithError(
          "unavailable",
          `${tries} attempts to write failed because others wrote the same records`,
        );
      await catchUp();
    }
  }

  async #commit(commit: Commit, signal: AbortSignal | undefined): Promise<Written> {
    const life = signal === undefined ? this.#ground.life : AbortSignal.any([signal, this.#ground.life]);
    for (let tries = 1; ; tries++) {
      let outcome: Written;
      try {
        outcome = await this.#ground.storage.commit(commit, life);
      } catch (error) {
        // A refusal now says nothing about the attempt before.
        if (tries === 1) throw error;
        outcome = { result: "unknown", cause: wrap(error, "asking again") };
      }
      if (outcome.result !== "unknown" || tries >= UNKNOWN_RETRIES || life.aborted) return outcome;
      this.#ground.log.debug("the outcome of a write is unknown, asking again", {
        id: commit.id,
        cause: messageOf(outcome.cause),
      });
      try {
        await this.#ground.clock.sleep(jitter(RETRY_FIRST_MS * 2 ** (tries - 1), 0.5, this.#ground.random), life);
      } catch {
        return outcome;
      }
    }
  }
}
