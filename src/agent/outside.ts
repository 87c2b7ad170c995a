// What this host's sources list on external nodes: held in the directory together with the other agents that see the same, by compare-and-set.
import type { Clock } from "../base/clock.ts";
import { codeOf, messageOf, TrilithError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import { jitter, type Random } from "../base/random.ts";
import type { HeldOutside } from "../contracts/agent.ts";
import type { Directory } from "../contracts/directory.ts";
import type { Probe } from "../contracts/probe.ts";
import type { SourceList } from "../contracts/source.ts";
import type { CheckSpec } from "../model/check.ts";
import { goneKeyOf, type Registration } from "../model/instance.ts";
import type { Reason } from "../model/reason.ts";
import { type Change, type Expect, keyOf } from "../model/record.ts";
import { OutsideChecks } from "./outside-checks.ts";
import { type Complaint, nameOf, nodeKeyOf, readOutside } from "./outside-list.ts";
import { same, whoIs } from "./reconcile.ts";
import { instanceOf } from "./records.ts";
import type { Shortages } from "./shortages.ts";
import { type Planned, planNode, type Statement } from "./witness.ts";

export interface OutsideOptions {
  readonly directory: Directory;
  /** This host's node and its datacenter. */
  readonly node: string;
  readonly datacenter: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly probes: ReadonlyMap<string, Probe>;
  readonly checkUpdateMs: number;
  readonly maxRunning: number | undefined;
  readonly antiEntropyMs: number;
  /** True: the store is in this process, and adopting waits for it. */
  readonly embedded: boolean;
  /** The check as it can be asked here, or in its place one that says why it cannot. */
  readonly askable: (from: string, spec: CheckSpec) => CheckSpec;
  /** Something came, changed or went, for the history. */
  readonly note: (service: string, id: string, text: string) => void;
  /** Told of checks that could not be asked. */
  readonly shortages: Pick<Shortages, "met">;
  /** What `held` tells has changed. */
  readonly changed: () => void;
}

/** Changes in one write; see `Carrier`. */
const MAX_CHANGES = 100;
/** Tries of one round before the next one is waited for: others write the same nodes, too. */
const TRIES = 10;
const BACKOFF_MS = { first: 500, last: 30_000 } as const;
const JITTER_SHARE = 0.1;
/** Between a change elsewhere and looking at it, so that many changes are one look. */
const LOOK_MS = 50;

/** One per agent. Nothing is written before `start`. */
export class Outside {
  readonly #options: OutsideOptions;
  readonly #log: Log;
  readonly #checks: OutsideChecks;
  /** By node key, then service id. */
  readonly #statements = new Map<string, Map<string, Statement>>();
  readonly #withdrawn = new Map<string, Map<string, { readonly why: Reason; readonly service: string }>>();
  /** Sources that have told their list in this life; of the others nothing is known, so nothing of theirs is gone. */
  readonly #told = new Set<string>();
  /** Of these, those whose list was not yet compared with what an earlier life left. */
  readonly #fresh = new Map<string, SourceList>();
  readonly #faults = new Map<string, readonly Complaint[]>();
  readonly #conflicts = new Map<string, Complaint>();
  readonly #dirty = new Map<string, { whole: boolean }>();
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;
  #writing: Promise<void> = Promise.resolve();
  #bell: (() => void) | undefined;
  #failures = 0;
  /** Before then (monotonic) nothing is tried: the store did not take the last try. */
  #notBefore = 0;

  constructor(options: OutsideOptions) {
    this.#options = options;
    this.#log = options.log.part("outside");
    this.#checks = new OutsideChecks({
      ...options,
      changed: (nodeKey) => this.#ring(nodeKey),
      short: (id, shortage) => options.shortages.met(id, shortage),
    });
    options.metrics.gauge("agent_outside_services", "Instances on external nodes that this host's sources list", () => {
      let count = 0;
      for (const { size } of this.#statements.values()) count += size;
      return count;
    });
  }

  /** Carries what was adopted, and keeps carrying. Called once, when the directory has its first picture. */
  start(): void {
    if (this.#stop.signal.aborted) return;
    this.#running ??= this.#run();
  }

  /** Resolves when nothing is asked or written any more; what stands stays. */
  async stop(): Promise<void> {
    this.#stop.abort(new TrilithError("stopped", "the agent is stopping"));
    this.#bell?.();
    await this.#running;
    await this.#writing.catch(() => {});
    await this.#checks.stop();
  }

  /** After `stop`: this host is no longer a witness of anything. */
  async leave(): Promise<void> {
    const why: Reason = {
      code: "missing",
      text: `its last witness, node "${this.#options.node}", left`,
      confirmed: false,
      atMs: this.#options.clock.now(),
    };
    this.#statements.clear();
    for (const [nodeKey, id] of this.#witnessedHere()) this.#withdraw(nodeKey, id, "", why);
    for (let tries = 0; this.#dirty.size > 0 && tries < TRIES; tries++) await this.#flushOnce();
  }

  /** Takes what a source lists on external nodes; of the list only that. Resolves when an embedded directory has it. */
  async adopt(from: string, whole: SourceList, again: boolean): Promise<void> {
    const { clock } = this.#options;
    const { listed, faults } = readOutside(from, whole, {
      askable: this.#options.askable,
      ownerOf: (nodeKey, id) => this.#statements.get(nodeKey)?.get(id)?.from,
    });
    const before = this.#faults.get(from) ?? [];
    for (const { about, text } of faults)
      if (!before.some((one) => one.about === about && one.text === text)) this.#log.warn(`${from}: ${about}: ${text}`);
    this.#faults.set(from, faults);

    const newNames = new Map<string, Registration>();
    for (const r of listed.values()) if (r.foreignId !== undefined) newNames.set(r.foreignId, r);
    newNames.delete("");
    let changed = false;
    for (const [nodeKey, statements] of this.#statements)
      for (const [id, statement] of statements) {
        const { registration } = statement;
        if (statement.from !== from || listed.has(nameOf(registration))) continue;
        statements.delete(id);
        if (statements.size === 0) this.#statements.delete(nodeKey);
        const now = newNames.get(registration.foreignId ?? "");
        const why = whole.gone?.get(goneKeyOf(registration)) ?? this.#missing(from, whole, clock.now(), now);
        this.#withdraw(nodeKey, id, registration.name, why);
        changed = true;
      }
    for (const r of listed.values()) {
      const nodeKey = nodeKeyOf(r);
      const statements = this.#statements.get(nodeKey) ?? new Map<string, Statement>();
      this.#statements.set(nodeKey, statements);
      const old = statements.get(r.id);
      if (old !== undefined && old.authority === whole.authority && same(old.registration, r)) {
        if (!again || !old.away) continue;
        old.away = false;
        old.joined = false;
      } else
        statements.set(r.id, {
          from,
          authority: whole.authority,
          registration: r as Statement["registration"],
          news: old !== undefined,
          joined: false,
          away: false,
        });
      if (old === undefined) this.#options.note(r.name, r.id, `is listed by ${from}: ${whoIs(r)}`);
      this.#withdrawn.get(nodeKey)?.delete(r.id);
      this.#mark(nodeKey);
      changed = true;
    }
    if (!this.#told.has(from)) {
      this.#told.add(from);
      this.#fresh.set(from, whole);
      changed = true;
    }
    if (!changed) return;
    this.#options.changed();
    this.#bell?.();
    if (this.#options.embedded && this.#running !== undefined) await this.#flush();
  }

  held(): readonly HeldOutside[] {
    return [...this.#statements].flatMap(([nodeKey, statements]) =>
      [...statements.values()].map(({ from, authority, registration, away }) => ({
        instance: instanceOf(registration.external.node.name, from, authority, registration, {
          tags: registration.tags,
          draining: false,
        }),
        asked: registration.overridden?.registration ?? registration,
        checks: this.#checks.of(nodeKey, registration.id),
        stands: !away,
      })),
    );
  }

  complaints(): readonly Complaint[] {
    return [...[...this.#faults.values()].flat(), ...this.#conflicts.values()];
  }

  /** True where everything adopted so far is in the directory. */
  get quiet(): boolean {
    return this.#dirty.size === 0 && this.#fresh.size === 0;
  }

  /** Resolves when everything adopted so far is in the directory. */
  async synced(signal?: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const until = signal === undefined ? this.#stop.signal : AbortSignal.any([signal, this.#stop.signal]);
    while (!this.quiet) {
      until.throwIfAborted();
      // What goes wrong is told by the round that tries again.
      await this.#flush().catch((error: unknown) => this.#backOff(error));
      if (!this.quiet) await clock.sleep(LOOK_MS, until);
    }
  }

  #missing(from: string, { authority }: SourceList, atMs: number, now?: Registration): Reason {
    if (now !== undefined)
      return {
        code: "replaced",
        text: `is called "${now.id}" on the external node "${now.external?.node.name}" now`,
        confirmed: true,
        atMs,
      };
    const text = `is no longer in the list of ${from}`;
    return { code: "missing", text, confirmed: authority === "first-hand", atMs };
  }

  #withdraw(nodeKey: string, id: string, service: string, why: Reason): void {
    const ids = this.#withdrawn.get(nodeKey) ?? new Map<string, { readonly why: Reason; readonly service: string }>();
    this.#withdrawn.set(nodeKey, ids);
    ids.set(id, { why, service });
    if (service !== "") this.#options.note(service, id, `is no longer listed here (${why.code}): ${why.text}`);
    this.#mark(nodeKey);
  }

  #mark(nodeKey: string, whole = false): void {
    const known = this.#dirty.get(nodeKey);
    if (known === undefined) this.#dirty.set(nodeKey, { whole });
    else known.whole ||= whole;
  }

  #ring(nodeKey: string): void {
    this.#mark(nodeKey);
    this.#bell?.();
  }

  /** What the directory says that this host witnesses, of all sources or of one. */
  *#witnessedHere(from?: string): Iterable<readonly [nodeKey: string, id: string]> {
    const self = this.#options.node.toLowerCase();
    for (const { name, witnessed } of this.#options.directory.view().list("node"))
      for (const { service, source, by } of witnessed ?? [])
        if ((from === undefined || source === from) && by.some((one) => one.toLowerCase() === self))
          yield [keyOf.node(name), service];
  }

  /** What an earlier life of this host left and the source does not list any more. */
  #compareLeft(): void {
    for (const [from, whole] of this.#fresh)
      for (const [nodeKey, id] of this.#witnessedHere(from)) {
        if (this.#statements.get(nodeKey)?.get(id)?.from === from) continue;
        const why = whole.gone?.get(`${nodeKey}/${id}`) ?? this.#missing(from, whole, this.#options.clock.now());
        this.#withdraw(nodeKey, id, "", why);
      }
    this.#fresh.clear();
  }

  // ---- carrying ----

  async #run(): Promise<void> {
    const { directory, clock, random, antiEntropyMs } = this.#options;
    const { signal } = this.#stop;
    let wholeAt = clock.monotonic() + jitter(antiEntropyMs, JITTER_SHARE, random);
    this.#markAll(true);
    while (!signal.aborted) {
      const view = directory.view();
      const round = new AbortController();
      const rung = new Promise<void>((resolve) => {
        this.#bell = resolve;
      });
      await this.#flush().catch((error: unknown) => this.#backOff(error));
      if (signal.aborted) return;
      const dueMs = Math.max(0, wholeAt - clock.monotonic());
      const waits = this.quiet || !this.#isHere();
      const retryMs = waits ? dueMs : Math.max(0, this.#notBefore - clock.monotonic());
      const timer = clock.after(Math.min(dueMs, retryMs), () => this.#bell?.());
      const pass = (): void => round.abort(signal.reason);
      signal.addEventListener("abort", pass, { once: true });
      const elsewhere = (["nodes", "alive"] as const).map((scope) =>
        directory.changed(scope, view.at(scope), round.signal).then(
          () => "elsewhere" as const,
          () => "ended" as const,
        ),
      );
      const what = await Promise.race([rung, ...elsewhere]);
      timer.cancel();
      round.abort();
      signal.removeEventListener("abort", pass);
      if (signal.aborted) return;
      if (clock.monotonic() >= wholeAt) {
        wholeAt = clock.monotonic() + jitter(antiEntropyMs, JITTER_SHARE, random);
        this.#markAll(true);
      } else if (what === "elsewhere") {
        await clock.sleep(LOOK_MS, signal).catch(() => {});
        this.#markAll(false);
      }
    }
  }

  /** Looks at every external node again that agents witness. */
  #markAll(whole: boolean): void {
    for (const nodeKey of this.#statements.keys()) this.#mark(nodeKey, whole);
    for (const { name, witnessed } of this.#options.directory.view().list("node"))
      if (witnessed !== undefined) this.#mark(keyOf.node(name), whole);
  }

  /** Who has no record in the directory yet would be taken for gone by the others. */
  #isHere(): boolean {
    const { directory, node } = this.#options;
    return directory.view().get("node", keyOf.node(node)) !== undefined;
  }

  #backOff(error: unknown): void {
    const { clock, random } = this.#options;
    if (this.#stop.signal.aborted || codeOf(error) === "stopped") return;
    const waitMs = jitter(
      Math.min(BACKOFF_MS.last, BACKOFF_MS.first * 2 ** Math.min(this.#failures++, 10)),
      JITTER_SHARE,
      random,
    );
    this.#notBefore = clock.monotonic() + waitMs;
    this.#log.warn("the directory does not take what is on external nodes, trying again", {
      error: messageOf(error),
      inMs: Math.round(waitMs),
    });
  }

  /** Writes until nothing is left; one round at a time. @throws TrilithError where the store does not take it */
  #flush(): Promise<void> {
    const before = this.#writing.catch(() => {});
    this.#writing = before.then(async () => {
      const { clock, directory, random } = this.#options;
      for (let tries = 0; !this.#stop.signal.aborted && tries < TRIES; tries++) {
        if (!this.#isHere()) return;
        this.#compareLeft();
        if (this.#dirty.size === 0 || clock.monotonic() < this.#notBefore) return;
        if (tries > 0) {
          await directory.barrier(this.#stop.signal);
          await clock.sleep(random.fraction() * tries * 20, this.#stop.signal);
        }
        if (await this.#flushOnce(tries > 0)) return;
      }
      this.#notBefore = clock.monotonic() + BACKOFF_MS.first;
    });
    return this.#writing;
  }

  /** True where everything was written. `singly`: one node a write, because somebody else writes some of them. */
  async #flushOnce(singly = false): Promise<boolean> {
    let all = true;
    let batch: { readonly nodeKey: string; readonly whole: boolean; readonly planned: Planned }[] = [];
    let size = 0;
    const write = async (): Promise<void> => {
      const taken = batch;
      batch = [];
      size = 0;
      if (taken.length > 0 && !(await this.#write(taken))) all = false;
    };
    for (const [nodeKey, { whole }] of [...this.#dirty]) {
      this.#dirty.delete(nodeKey);
      const planned = this.#plan(nodeKey, whole);
      if (planned.changes.length === 0) {
        this.#settled(nodeKey, planned);
        continue;
      }
      if (singly || size + planned.changes.length > MAX_CHANGES) await write();
      batch.push({ nodeKey, whole, planned });
      size += planned.changes.length;
    }
    await write();
    return all;
  }

  #plan(nodeKey: string, whole: boolean): Planned {
    const { directory, node, datacenter, clock } = this.#options;
    const withdrawn = [...(this.#withdrawn.get(nodeKey) ?? [])].map(([id, { why }]) => [id, why] as const);
    return planNode({
      view: directory.view(),
      self: node,
      datacenter,
      nodeKey,
      statements: this.#statements.get(nodeKey) ?? new Map(),
      withdrawn: new Map(withdrawn),
      whole,
      nowMs: clock.now(),
      stands: (key, spec) => this.#checks.stands(key, spec),
    });
  }

  async #write(
    batch: readonly { readonly nodeKey: string; readonly whole: boolean; readonly planned: Planned }[],
  ): Promise<boolean> {
    const again = (): void => {
      for (const { nodeKey, whole } of batch) this.#mark(nodeKey, whole);
    };
    const changes: Change[] = batch.flatMap(({ planned }) => planned.changes);
    const expect: Expect[] = batch.flatMap(({ planned }) => planned.expect);
    try {
      const written = await this.#options.directory.write(
        changes,
        expect,
        this.#stop.signal.aborted ? undefined : this.#stop.signal,
      );
      if (written.result === "unknown") throw written.cause;
      if (written.result === "expectation-failed") {
        again();
        return false;
      }
    } catch (error) {
      const code = codeOf(error);
      const [only] = batch;
      if (code !== "invalid" && code !== "too-large") {
        again();
        throw error;
      }
      if (batch.length > 1 || only === undefined) {
        // One bad node must not hold up the others of its write.
        let all = true;
        for (const one of batch) all = (await this.#write([one])) && all;
        return all;
      }
      const text = `the directory refuses the external node "${only.nodeKey}": ${messageOf(error)}`;
      this.#log.warn(text);
      for (const { registration, from } of this.#statements.get(only.nodeKey)?.values() ?? [])
        this.#conflicts.set(nameOf(registration), { from, about: registration.id, text });
      return true;
    }
    this.#failures = 0;
    for (const { nodeKey, planned } of batch) this.#settled(nodeKey, planned);
    return true;
  }

  /** What was planned for a node stands. */
  #settled(nodeKey: string, { done, conflicts, mine }: Planned): void {
    const statements = this.#statements.get(nodeKey);
    for (const statement of done)
      if (statements?.get(statement.registration.id) === statement) {
        statement.news = false;
        statement.joined = true;
      }
    const withdrawn = this.#withdrawn.get(nodeKey);
    const self = this.#options.node.toLowerCase();
    const { directory } = this.#options;
    const view = directory.view();
    const node = view.get("node", nodeKey);
    for (const id of withdrawn?.keys() ?? []) {
      const still = node?.witnessed?.find(({ service }) => service === id);
      if (still?.by.some((name) => name.toLowerCase() === self) !== true) withdrawn?.delete(id);
    }
    if (withdrawn?.size === 0) this.#withdrawn.delete(nodeKey);
    for (const key of this.#conflicts.keys()) if (key.startsWith(`${nodeKey}\u0000`)) this.#conflicts.delete(key);
    for (const [id, text] of conflicts)
      this.#conflicts.set(`${nodeKey}\u0000${id}`, { from: statements?.get(id)?.from ?? "", about: id, text });
    const asked = new Set<string>();
    for (const id of mine) {
      const statement = statements?.get(id);
      const instance = view.get("service", keyOf.service(nodeKey, id));
      if (statement === undefined || instance === undefined || node === undefined) continue;
      for (const spec of statement.registration.checks) {
        const stood = view.get("check", keyOf.check(nodeKey, spec.id));
        if (stood === undefined) continue;
        asked.add(spec.id);
        const { createIndex: _c, modifyIndex: _m, ...check } = stood;
        this.#checks.ask(instance, node, nodeKey, spec, check);
      }
    }
    this.#checks.only(nodeKey, asked);
  }
}
