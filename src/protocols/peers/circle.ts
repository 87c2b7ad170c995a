// The other hosts: who is asked at which places, who may be whom, and how that goes.
import { codeOf, messageOf, TrilithError } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import { jitter } from "../../base/random.ts";
import type { Ground, SourceState } from "../../contracts/ground.ts";
import { keyOf } from "../../model/record.ts";
import { hostOf, isLoopback } from "./config.ts";
import { type Claim, Copy } from "./copy.ts";
import { linesOf } from "./follow.ts";
import { type Hello, PEERS_VERSION } from "./lines.ts";

export interface CircleOptions extends Pick<Ground, "clock" | "random" | "http" | "directory" | "vouch" | "self"> {
  readonly log: Log;
  /** The key as it is now. */
  readonly key: () => string | undefined;
  readonly port: number;
  /** This start of the agent. */
  readonly life: string;
  /** Hosts are reached at the address they were asked at, whatever they say: on a tailnet. */
  readonly addressIsPlace: boolean;
  /** May a place that others told of be asked? */
  readonly mayAsk: (host: string) => boolean;
}

/** How a place was come by: by itself, or told by others. */
export type Way = "named" | "found" | "told";

/** How it stands with a place. */
interface Standing {
  readonly kind: "trying" | "heard" | "self" | "double" | "silent" | "gone" | "refused";
  readonly text: string;
}

interface Place {
  readonly at: string;
  readonly ways: Set<Way>;
  readonly stop: AbortController;
  standing: Standing;
  /** Monotonic milliseconds at which it was last heard or told of. */
  lastMs: number;
  /** Monotonic milliseconds at which it was last heard; -1 = never. */
  heardMs: number;
  nudge: (() => void) | undefined;
  /** The stream that stands: with which key it was asked for, and how it ends. */
  stream: { readonly key: string | undefined; readonly cut: AbortController } | undefined;
  running: Promise<void>;
}

/** Between tries: right after a loss, of a host that was heard before, of one that never was. */
const PAUSE_MS = { first: 50, known: 1_000, unknown: 5_000, found: 15_000 } as const;
/** What was only told by others and is not heard is no longer asked after so long. */
const FORGET_MS = 600_000;
/** This host itself, or one that is heard elsewhere: looked at again after so long. */
const IDLE_MS = 10_000;
const MOST_PLACES = 1_000;

/** One per agent. */
export class Circle {
  readonly #options: CircleOptions;
  readonly #log: Log;
  readonly #places = new Map<string, Place>();
  readonly #copies = new Map<string, Copy>();
  #stopped = false;

  constructor(options: CircleOptions) {
    this.#options = options;
    this.#log = options.log;
  }

  /** The whole list of places of one way. */
  set(way: Exclude<Way, "told">, places: readonly string[]): void {
    for (const at of places) this.#add(at, way);
    const listed = new Set(places);
    for (const place of [...this.#places.values()]) {
      if (!place.ways.has(way) || listed.has(place.at)) continue;
      place.ways.delete(way);
      // Who is heard is heard, until it falls silent.
      if (place.standing.kind === "heard") place.ways.add("told");
      else if (place.ways.size === 0) this.#drop(place);
    }
  }

  /** Somebody who may ask has said that a host is at that place. */
  told(at: string): void {
    if (!this.#options.mayAsk(hostOf(at))) return;
    this.#add(at, "told");
    const place = this.#places.get(at);
    if (place !== undefined) place.lastMs = this.#options.clock.monotonic();
    // Two that refuse each other would call each other back for ever.
    if (place?.standing.kind === "silent" || place?.standing.kind === "gone") place.nudge?.();
  }

  /** Streams that were asked for with another key are asked for anew. */
  cutOthers(): void {
    for (const { stream } of this.#places.values())
      if (stream !== undefined && stream.key !== this.#options.key())
        stream.cut.abort(new TrilithError("stopped", "the key is another one now"));
  }

  /** Where others are heard at this moment. */
  heard(): readonly string[] {
    return [...this.#copies.values()].flatMap((copy) => (copy.connected ? [copy.claim.place] : []));
  }

  states(): readonly SourceState[] {
    const places = [...this.#places.values()];
    const heard = places.filter(({ standing }) => standing.kind === "heard").map(({ standing }) => standing.text);
    const bad = places.filter(
      ({ standing, ways }) =>
        standing.kind === "refused" || (ways.has("named") && ["trying", "silent"].includes(standing.kind)),
    );
    const own: SourceState = {
      name: "peers",
      ok: true,
      text: heard.length === 0 ? "no other host is heard" : `hears ${heard.sort().join(", ")}`,
    };
    return [own, ...bad.map(({ at, standing }) => ({ name: `peer ${at}`, ok: false, text: standing.text }))];
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    for (const { stop } of this.#places.values()) stop.abort(new TrilithError("stopped", "the agent is stopping"));
    await Promise.all([...this.#places.values()].map(({ running }) => running));
    for (const copy of this.#copies.values()) copy.stop();
  }

  #add(at: string, way: Way): void {
    const known = this.#places.get(at);
    if (known !== undefined) {
      known.ways.add(way);
      return;
    }
    if (this.#stopped || (way === "told" && this.#places.size >= MOST_PLACES)) return;
    const place: Place = {
      at,
      ways: new Set([way]),
      stop: new AbortController(),
      standing: { kind: "trying", text: `${at} has not answered yet` },
      lastMs: this.#options.clock.monotonic(),
      heardMs: -1,
      nudge: undefined,
      stream: undefined,
      running: Promise.resolve(),
    };
    this.#places.set(at, place);
    place.running = this.#follow(place);
  }

  #drop(place: Place): void {
    this.#places.delete(place.at);
    place.stop.abort(new TrilithError("stopped", "nobody speaks of this place any more"));
  }

  /** Listens to whoever is at a place, again and again. */
  async #follow(place: Place): Promise<void> {
    const { clock, random } = this.#options;
    const { signal } = place.stop;
    let known = false;
    for (let failures = 0; !signal.aborted; failures++) {
      const before = clock.monotonic();
      const wake = new AbortController();
      // Also while it is asked: the question may have left before anybody was there.
      place.nudge = () => wake.abort();
      place.standing = await this.#listen(place, signal);
      const { kind } = place.standing;
      if (signal.aborted) return;
      // Heard at all: whether it has gone or only its stream broke is asked soon.
      if (place.heardMs >= before) failures = 0;
      if (kind === "heard" || kind === "gone") known = true;
      if (this.#copyAt(place) !== undefined) known = true;
      const lastMs = clock.monotonic() - place.lastMs;
      if (place.ways.size === 1 && place.ways.has("told") && kind !== "double" && lastMs > FORGET_MS)
        return this.#drop(place);
      const most = known ? PAUSE_MS.known : place.ways.has("named") ? PAUSE_MS.unknown : PAUSE_MS.found;
      const waitMs =
        kind === "self" || kind === "double"
          ? IDLE_MS
          : jitter(Math.min(most, PAUSE_MS.first * 2 ** Math.min(failures, 12)), 0.2, random);
      await clock.sleep(waitMs, AbortSignal.any([signal, wake.signal])).catch(() => {});
    }
  }

  #copyAt(place: Place): Copy | undefined {
    for (const copy of this.#copies.values()) if (copy.claim.place === place.at) return copy;
    return undefined;
  }

  /** One stream, from the question to its end. */
  async #listen(place: Place, signal: AbortSignal): Promise<Standing> {
    const cut = new AbortController();
    const pass = (): void => cut.abort(signal.reason);
    place.stream = { key: this.#options.key(), cut };
    signal.addEventListener("abort", pass, { once: true });
    let copy: Copy | undefined;
    let held: { readonly release: () => Promise<void> } | undefined;
    try {
      for await (const line of linesOf(place.at, this.#options, cut.signal)) {
        if (line.kind === "hello") {
          if (copy !== undefined) throw new TrilithError("damaged", `${place.at} greets twice`);
          const who = this.#admit(line, place);
          if (typeof who === "string")
            return { kind: who, text: who === "self" ? "this host itself" : `is "${line.node}", heard elsewhere, too` };
          copy = who;
          held = copy.hold(this.#claim(line, place), cut);
          place.standing = { kind: "heard", text: `"${line.node}" at ${place.at}` };
          continue;
        }
        if (copy === undefined) throw new TrilithError("damaged", `${place.at} does not greet`);
        place.heardMs = this.#options.clock.monotonic();
        place.lastMs = place.heardMs;
        copy.heard();
        // Another host's loopback is not this one's.
        if (line.kind === "peers")
          for (const at of line.at) if (!isLoopback(hostOf(at)) || isLoopback(hostOf(place.at))) this.told(at);
        if (line.kind === "own") copy.take(line.whole, line.rows);
        if (line.kind !== "goodbye") continue;
        await held?.release();
        await copy.goodbye(line.leave);
        return { kind: "gone", text: `"${copy.name}" at ${place.at} said goodbye` };
      }
      return { kind: "silent", text: `the stream of ${place.at} ended` };
    } catch (error) {
      if (signal.aborted) return { kind: "silent", text: "is no longer asked" };
      const text = messageOf(error);
      const code = codeOf(error);
      // Its host says that nobody is there any more.
      if (errnoOf(error) === "ECONNREFUSED") this.#copyAt(place)?.silent("nobody listens there");
      if (code !== "not-allowed" && code !== "conflict" && code !== "unsupported" && code !== "damaged")
        return { kind: "silent", text: `cannot be heard: ${text}` };
      if (place.standing.text !== text) this.#log.error(`peer ${place.at}: ${text}`);
      return { kind: "refused", text };
    } finally {
      place.stream = undefined;
      signal.removeEventListener("abort", pass);
      await held?.release();
    }
  }

  #claim(hello: Hello, { at }: Place): Claim {
    return { hello, place: at, ...(this.#options.addressIsPlace ? { address: hostOf(at) } : {}) };
  }

  /** Who is it? @throws TrilithError `conflict` where two hosts would be one, `unsupported` for another version */
  #admit(hello: Hello, { at }: Place): Copy | "self" | "double" {
    const { self, life, directory } = this.#options;
    const { node, nodeId } = hello;
    const clash = (what: string): never => {
      throw new TrilithError("conflict", what);
    };
    if (hello.version !== PEERS_VERSION)
      throw new TrilithError("unsupported", `${at} speaks version ${hello.version}, this agent ${PEERS_VERSION}`);
    if (hello.life === life) return "self";
    if (hello.datacenter.toLowerCase() !== self.datacenter.toLowerCase())
      clash(`${at} is in datacenter "${hello.datacenter}", this host in "${self.datacenter}"`);
    const key = keyOf.node(node);
    if (key === keyOf.node(self.node))
      clash(
        `${at} is called "${node}" (node ID ${nodeId}), as this host is (node ID ${self.nodeId}): give one of them another name (--node)`,
      );
    if (nodeId === self.nodeId)
      clash(
        `${at} ("${node}") has this host's node ID ${nodeId}: one data folder is a copy of the other; give one of them another one, or another --node-id`,
      );
    // One that a source brought in (a host seen on the LAN) gives way to the agent of that host.
    const standing = directory.view().get("node", key);
    if (standing?.external === true && standing.origin === undefined)
      clash(
        `${at} is called "${node}", as an external node that was registered here: deregister that one, or rename it`,
      );
    for (const other of this.#copies.values()) {
      const { hello: theirs, place } = other.claim;
      const sameName = keyOf.node(theirs.node) === key;
      if (!sameName && theirs.nodeId !== nodeId) continue;
      if (!other.living) continue;
      if (sameName && theirs.nodeId === nodeId) {
        if (theirs.life === hello.life && other.connected) return "double";
        if (theirs.life === hello.life || !other.connected) continue;
        clash(`"${node}" is heard at ${place} and at ${at}: one is a copy of the other, or was left a moment ago`);
      }
      clash(
        sameName
          ? `two hosts are called "${node}": the one at ${place} (node ID ${theirs.nodeId}) and the one at ${at} (node ID ${nodeId}); give one of them another name (--node)`
          : `two hosts have the node ID ${nodeId}: "${theirs.node}" at ${place} and "${node}" at ${at}; one data folder is a copy of the other`,
      );
    }
    const known = this.#copies.get(key);
    if (known !== undefined && known.name === node) return known;
    known?.stop();
    const made = new Copy(this.#options, { hello, place: at });
    this.#copies.set(key, made);
    return made;
  }
}

/** The operating system's name for what went wrong, from the depth of an error. */
function errnoOf(error: unknown): string | undefined {
  for (let at = error; at instanceof Error; at = at.cause) {
    const { code } = at as { readonly code?: unknown };
    if (typeof code === "string" && /^E[A-Z]+$/.test(code)) return code;
  }
  return undefined;
}
