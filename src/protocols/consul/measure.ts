// Agents that share a directory measure how far they are from one another, and tell their places there for `?near`, rtt and nearest datacenters.
import type { Clock } from "../../base/clock.ts";
import { codeOf, messageOf, TrilithError } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import { ipFamily, type Net } from "../../base/net.ts";
import type { Random } from "../../base/random.ts";
import { roundTripMs } from "../../base/round-trip.ts";
import type { Directory, View } from "../../contracts/directory.ts";
import type { Self } from "../../contracts/ground.ts";
import { NODE_ALIVE_CHECK } from "../../model/check.ts";
import type { Node } from "../../model/node.ts";
import { keyOf } from "../../model/record.ts";
import { type Coordinate, coordinatesOf, type KeptCoordinate, tellCoordinate } from "./coordinates.ts";
import { createVivaldi, isValid, movedS, type Vivaldi } from "./vivaldi.ts";

/** One peer is asked so often, varied by half. */
const PROBE_EVERY_MS = 5000;
/** A host that refuses a connection has answered. */
const PROBE = { timeoutMs: 2000, evenRefused: true } as const;
/** One's own place is told no more often than after 5 to 15 s. */
const TELL_AFTER_MS = 5000;
const TELL_SPREAD_MS = 10_000;
/** And first after 15 to 30 s alone (as by Consul's agents), soon where there are others. */
const ALONE_MS = 15_000;
const FIRST_MS = 3000;
/** A smaller step is not worth a write, seconds; nor is a smaller change of confidence. */
const STEP_S = 0.0002;
const ERROR_STEP = 0.2;

export interface MeasureOptions {
  readonly directory: Pick<Directory, "view" | "write" | "ready">;
  readonly self: Pick<Self, "node" | "client" | "listening">;
  readonly net: Pick<Net, "connect">;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** The port that a peer is asked at which does not say where it listens. */
  readonly port: number;
}

/** Runs between `start` and `stop`; a client host, which has no directory of its own, measures nothing. */
export interface Measure {
  start(): void;
  stop(): Promise<void>;
}

/** Builds it; nothing runs before `start`. */
export function createMeasure(options: MeasureOptions): Measure {
  const stop = new AbortController();
  let running: Promise<void> | undefined;
  return {
    start() {
      if (options.self.client === true || stop.signal.aborted) return;
      running ??= new Measuring(options, stop.signal).run();
    },
    async stop() {
      stop.abort(new TrilithError("stopped", "measuring is stopping"));
      await running;
    },
  };
}

interface Peer {
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly coordinate: Coordinate;
}

class Measuring {
  readonly #options: MeasureOptions;
  readonly #signal: AbortSignal;
  readonly #log: Log;
  readonly #vivaldi: Vivaldi;
  /** What the directory holds of this node, as far as it came from here or was taken over. */
  #told: Coordinate | undefined;

  constructor(options: MeasureOptions, signal: AbortSignal) {
    this.#options = options;
    this.#signal = signal;
    this.#log = options.log.part("measure");
    this.#vivaldi = createVivaldi(options.random);
  }

  /** Resolves when stopped. */
  async run(): Promise<void> {
    const { clock, directory, random } = this.#options;
    try {
      await directory.ready(this.#signal);
      let alone = true;
      let tellAt = clock.monotonic() + ALONE_MS * (1 + random.fraction());
      for (;;) {
        if (alone && this.#others(directory.view()).length > 0) {
          // They cannot measure from this node before it has said that it is here.
          alone = false;
          tellAt = Math.min(tellAt, clock.monotonic() + FIRST_MS * (0.5 + random.fraction()));
        }
        const probeInMs = PROBE_EVERY_MS * (0.5 + random.fraction());
        await clock.sleep(Math.max(1, Math.min(tellAt - clock.monotonic(), probeInMs)), this.#signal);
        const peers = this.#peers(directory.view());
        const peer = peers[random.below(Math.max(1, peers.length))];
        if (peer !== undefined) await this.#probe(peer);
        if (clock.monotonic() < tellAt) continue;
        this.#vivaldi.keepOnly(new Set(peers.map(({ name }) => name)));
        await this.#tell();
        tellAt = clock.monotonic() + TELL_AFTER_MS + TELL_SPREAD_MS * random.fraction();
      }
    } catch (error) {
      if (!this.#signal.aborted && codeOf(error) !== "stopped") throw error;
    }
  }

  /** The nodes of other agents that live. */
  #others(view: View): readonly Node[] {
    const { self } = this.#options;
    return Array.from(view.list("node")).filter(
      ({ name, address, external }) =>
        external !== true &&
        name !== self.node &&
        ipFamily(address) !== 0 &&
        view.get("check", keyOf.check(name, NODE_ALIVE_CHECK))?.status !== "critical",
    );
  }

  /** Those of them that have told where they stand. */
  #peers(view: View): readonly Peer[] {
    const { port } = this.#options;
    const peers: Peer[] = [];
    for (const node of this.#others(view)) {
      const [kept] = coordinatesOf(view, node.name);
      if (kept === undefined || !isValid(kept.coordinate)) continue;
      peers.push({ name: node.name, host: node.address, port: kept.port ?? port, coordinate: kept.coordinate });
    }
    return peers;
  }

  async #probe(peer: Peer): Promise<void> {
    const rttMs = await roundTripMs(this.#options, peer, PROBE, this.#signal);
    if (rttMs === undefined) this.#log.debug(`${peer.name} at ${peer.host} did not answer`);
    else this.#vivaldi.observe(peer.name, peer.coordinate, rttMs / 1000);
  }

  /** Writes this node's place where it moved. Somebody else's word about it is where measuring goes on from. */
  async #tell(): Promise<void> {
    const { directory, self } = this.#options;
    const view = directory.view();
    const name = view.get("node", keyOf.node(self.node))?.name;
    if (name === undefined || !view.fresh) return;
    const held = coordinatesOf(view, name).find(({ segment }) => segment === "");
    if (held !== undefined && !isSame(held.coordinate, this.#told)) {
      this.#vivaldi.adopt(held.coordinate);
      this.#told = held.coordinate;
    }
    const { coordinate } = this.#vivaldi;
    const port = portOf(self.listening.get("http"));
    const elsewhere = held !== undefined && port !== undefined && held.port !== port;
    const stays =
      held !== undefined &&
      movedS(held.coordinate, coordinate) < STEP_S &&
      Math.abs(held.coordinate.Error - coordinate.Error) < ERROR_STEP;
    if (stays && !elsewhere) return;
    const kept: KeptCoordinate = { node: name, segment: "", coordinate, ...(port === undefined ? {} : { port }) };
    try {
      await tellCoordinate(directory, kept, this.#signal);
      this.#told = coordinate;
    } catch (error) {
      this.#signal.throwIfAborted();
      // The next round tells it again.
      this.#log.debug(`this node's coordinate could not be written: ${messageOf(error)}`);
    }
  }
}

const isSame = (a: Coordinate, b: Coordinate | undefined): boolean =>
  b !== undefined && movedS(a, b) === 0 && a.Error === b.Error;

/** The port of "127.0.0.1:8500"; undefined for a unix socket. */
function portOf(listening: string | undefined): number | undefined {
  const port = Number(/:(\d+)$/.exec(listening ?? "")?.[1]);
  return port > 0 ? port : undefined;
}
