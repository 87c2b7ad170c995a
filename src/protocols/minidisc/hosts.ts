// The hosts of the tailnet as their Minidisc processes tell: each followed, what it listed last kept with its age.
import type { Clock } from "../../base/clock.ts";
import type { Random } from "../../base/random.ts";
import { speakingAddress, type Tailnet, type TailnetHost } from "../../base/tailnet.ts";
import { labelsOf } from "../../model/label-tags.ts";
import type { Labels } from "../../model/node.ts";
import type { Asker, Line, Reply } from "./ask.ts";
import { type Followed, Follower, streamed } from "./follower.ts";
import { type AddrPort, type Dropped, PORT, type StreamedService } from "./wire.ts";

/** A service that some host of the tailnet advertises. */
export interface Found {
  readonly name: string;
  readonly labels: Labels;
  /** Told by Triliths only. */
  readonly tags: readonly string[];
  readonly address: string;
  readonly port: number;
  /** Further addresses, IPv6 for one; told by Triliths only. */
  readonly also: readonly AddrPort[];
  readonly health: "passing" | "warning";
  /** The ID of the node whose agent advertises it; told by Triliths only. */
  readonly owner?: string;
  /** The host that advertises it, by its own name; `nodeAddress` is its address in the tailnet. */
  readonly node: string;
  readonly nodeAddress: string;
  /** Advertised on this very host. */
  readonly own: boolean;
  /** Told by a Trilith. */
  readonly trilith: boolean;
  /** False while its host does not answer: the last known good. */
  readonly fresh: boolean;
  /** Milliseconds since its host said so. */
  readonly ageMs: number;
}

/** A host and what is known of its Minidisc. */
export interface HostState {
  readonly host: TailnetHost;
  readonly own: boolean;
  readonly address: string;
  /** Undefined while it has not been asked. */
  readonly followed: Followed | undefined;
  readonly ageMs: number;
}

/** Everything known at one moment: this host's services first, then those of the others by address. */
export interface Listing {
  readonly services: readonly Found[];
  readonly hosts: readonly HostState[];
}

export interface HostsOptions {
  readonly asker: Asker;
  readonly clock: Pick<Clock, "monotonic" | "after">;
  readonly random: Pick<Random, "fraction">;
  /** How often an original implementation is asked; before jitter. */
  readonly pollMs: number;
  readonly changed: () => void;
}

/** As the Go implementation waits. */
const ANSWER_MS = 2_000;
const BEAT_MS = 5_000;
/** A takeover among the original implementations takes up to five seconds; who is silent may be back. */
const FORGET_MS = { refused: 6_000, silent: 60_000 } as const;
/** A Trilith's exact list is waited for so long when it is asked once. */
const LINE_MS = 1_000;

const addressesOf = ({ own, peers }: Tailnet): readonly { host: TailnetHost; own: boolean; address: string }[] =>
  [{ host: own, own: true }, ...peers.map((host) => ({ host, own: false }))].flatMap((each) => {
    const address = speakingAddress(each.host);
    return address === undefined ? [] : [{ ...each, address }];
  });

export class Hosts {
  readonly #options: HostsOptions;
  #tailnet: Tailnet | undefined;
  readonly #followers = new Map<string, Follower>();
  readonly #ending = new Set<Promise<void>>();

  constructor(options: HostsOptions) {
    this.#options = options;
  }

  /** The tailnet as it is now: new hosts are asked, others no more. */
  be(tailnet: Tailnet): void {
    const { clock, changed } = this.#options;
    const before = JSON.stringify(this.#tailnet);
    this.#tailnet = tailnet;
    const wanted = new Set<string>();
    for (const { host, own, address } of addressesOf(tailnet)) {
      // Who is said to be offline, and has told something, is asked on until that is forgotten.
      const told = this.#followers.get(address)?.state;
      if (!own && !host.online && (told?.services === undefined || told.failing?.kind === "refused")) continue;
      wanted.add(address);
      if (this.#followers.has(address)) continue;
      const follower = new Follower({
        ...this.#options,
        clock,
        to: { host: address, port: PORT },
        timeoutMs: ANSWER_MS,
        beatMs: BEAT_MS,
        forgetMs: FORGET_MS,
      });
      this.#followers.set(address, follower);
      follower.start();
    }
    for (const [address, follower] of this.#followers) {
      if (!wanted.has(address)) this.#end(address, follower);
    }
    if (before !== JSON.stringify(tailnet)) changed();
  }

  /** True when every host that can be asked has answered, or has failed to. */
  get settled(): boolean {
    return (
      this.#tailnet !== undefined &&
      [...this.#followers.values()].every(({ state }) => state.services !== undefined || state.failing !== undefined)
    );
  }

  /** Asks all that do not tell by themselves, now. */
  async refresh(): Promise<void> {
    await Promise.all([...this.#followers.values()].map((each) => each.fresh(ANSWER_MS)));
  }

  listing(): Listing {
    if (this.#tailnet === undefined) return { services: [], hosts: [] };
    const hosts = addressesOf(this.#tailnet).map(({ host, own, address }): HostState => {
      const follower = this.#followers.get(address);
      return { host, own, address, followed: follower?.state, ageMs: follower?.ageMs ?? 0 };
    });
    return { services: hosts.flatMap(servicesOf), hosts };
  }

  /** Asks nobody any more; `be` begins anew. */
  async end(): Promise<void> {
    for (const [address, follower] of this.#followers) this.#end(address, follower);
    await Promise.all(this.#ending);
  }

  #end(address: string, follower: Follower): void {
    this.#followers.delete(address);
    const ending = follower.stop().finally(() => this.#ending.delete(ending));
    this.#ending.add(ending);
  }
}

function servicesOf({ host, own, address, followed, ageMs }: HostState): readonly Found[] {
  return (followed?.services ?? []).map(({ at, ...service }) => ({
    ...service,
    address: at.host,
    port: at.port,
    node: host.name,
    nodeAddress: address,
    own,
    trilith: followed?.kind === "trilith",
    fresh: followed?.failing === undefined,
    ageMs,
  }));
}

/** Asks this host and all that are online at the same time, once: a list without a watch. */
export async function sweep(
  { asker, clock }: Pick<HostsOptions, "asker" | "clock">,
  tailnet: Tailnet,
  signal: AbortSignal,
): Promise<Listing> {
  const hosts = await Promise.all(
    addressesOf(tailnet)
      .filter(({ host, own }) => own || host.online)
      .map(async (each): Promise<HostState> => {
        const to = { host: each.address, port: PORT };
        const reply = await asker.services(to, ANSWER_MS, signal);
        const line =
          reply.kind === "ok" && reply.mark !== undefined ? await firstLine(asker, clock, to, signal) : undefined;
        return { ...each, ageMs: 0, followed: once(reply, line, clock.monotonic()) };
      }),
  );
  return { services: hosts.flatMap(servicesOf), hosts };
}

function once(
  reply: Reply<{ readonly services: readonly StreamedServiceLike[]; readonly dropped: readonly Dropped[] }>,
  line: Line | undefined,
  atMs: number,
): Followed {
  if (line !== undefined)
    return { kind: "trilith", services: line.services, dropped: line.dropped, delegates: line.delegates, atMs };
  if (reply.kind !== "ok") {
    const { kind, text } = reply;
    return {
      kind: "asking",
      services: undefined,
      dropped: [],
      delegates: [],
      atMs,
      failing: { kind, text, sinceMs: atMs },
    };
  }
  const trilith = reply.mark !== undefined;
  return {
    kind: trilith ? "trilith" : "plain",
    services: streamed(reply.services, trilith),
    dropped: reply.dropped,
    delegates: [],
    atMs,
  };
}

type StreamedServiceLike = Pick<StreamedService, "name" | "labels" | "at">;

async function firstLine(
  asker: Asker,
  clock: Pick<Clock, "after">,
  to: AddrPort,
  signal: AbortSignal,
): Promise<Line | undefined> {
  const over = new AbortController();
  const stop = (): void => over.abort(signal.reason);
  signal.addEventListener("abort", stop, { once: true });
  const timer = clock.after(LINE_MS, () => over.abort(new Error("no line came")), true);
  let first: Line | undefined;
  try {
    await asker.follow(to, BEAT_MS, over.signal, (line) => {
      first ??= line;
      over.abort(new Error("that is enough"));
    });
  } finally {
    timer.cancel();
    signal.removeEventListener("abort", stop);
  }
  return first;
}

/** True where the service is called so and has all of the labels, among which tags stand as for Minidisc. */
export function isMatch(found: Pick<Found, "name" | "labels" | "tags">, name: string, labels: Labels): boolean {
  if (found.name !== name) return false;
  const all = labelsOf(found.labels, found.tags);
  return Object.entries(labels).every(([key, value]) => all[key] === value);
}
