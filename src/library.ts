// find, list and advertise for any program: through the agent of this host where there is one, else as a peer of the tailnet itself.
import { systemClock } from "./base/clock.ts";
import { TrilithError } from "./base/error.ts";
import { createHttp } from "./base/http.ts";
import { hostPort, systemNet } from "./base/net.ts";
import {
  labels as areLabels,
  callback,
  mustBe,
  mustFit,
  objectWith,
  oneOf,
  type Rules,
  signal,
  text,
  texts,
  wholeNumber,
} from "./base/options.ts";
import { shuffle, systemRandom } from "./base/random.ts";
import { DEFAULT_SOCKET } from "./base/tailnet.ts";
import { environment } from "./base/terminal.ts";
import type { Labels } from "./model/node.ts";
import { isSought } from "./name-sources.ts";
import { type ClientOptions, find as findByAgent, isNoAgent, list as listByAgent } from "./protocols/api/client.ts";
import type { FindJson, ListedJson } from "./protocols/api/shapes.ts";
import type { Advertisement, Found, Peer } from "./protocols/minidisc/peer.ts";
import {
  type Advertised,
  type AdvertiseOptions,
  advertise as advertiseByAgent,
} from "./protocols/process/advertise.ts";

const ASK: Rules<ClientOptions> = { agent: text, token: text, signal, http: objectWith("request") };
const FIND: Rules<FindOptions> = { ...ASK, tags: texts };
const ADVERTISE: Rules<AdvertiseOptions> = {
  name: text,
  port: wholeNumber(1, 65_535),
  address: text,
  protocol: oneOf("tcp", "udp"),
  tags: texts,
  labels: areLabels,
  checks: texts,
  intervalMs: wholeNumber(1, 2 ** 31 - 1),
  agent: text,
  token: text,
  onState: callback,
};

/** What `find` is told besides service and labels. */
type FindOptions = ClientOptions & { readonly tags?: readonly string[] };

/** After so long without a question the tailnet is watched no more. */
const IDLE_MS = 60_000;

/** The one peer of this process at one tailscaled: made for the first who needs it, stopped with the last. */
class Tailnet {
  readonly #path: string;
  #peer: Promise<Peer> | undefined;
  #users = 0;
  #watch: AbortController | undefined;
  #idle: { cancel(): void } | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  async take(): Promise<Peer> {
    this.#users++;
    this.#peer ??= (async () => {
      const { createPeer } = await import("./protocols/minidisc/peer.ts");
      return createPeer({
        clock: systemClock,
        random: systemRandom,
        net: systemNet,
        http: createHttp({ background: true }),
        localApi: this.#path,
      });
    })();
    return await this.#peer;
  }

  async release(): Promise<void> {
    if (--this.#users > 0) return;
    const peer = this.#peer;
    this.#peer = undefined;
    await (await peer)?.stop();
  }

  /**
   * Everything that is advertised; watched from the first question on, so that the next ones need not ask around unless nothing that is known is
   * `wanted`.
   */
  async services(wanted: (found: Found) => boolean, signal: AbortSignal | undefined): Promise<readonly Found[]> {
    // What is open in the background would let a program end that waits for nothing but this.
    const hold = systemClock.after(IDLE_MS, () => {}, true);
    const peer = await this.take();
    try {
      // Says so where there is no tailnet, rather than watch for one.
      const once = this.#watch === undefined;
      const listing = await peer.list({ once, wanted, ...(signal === undefined ? {} : { signal }) });
      this.#keepWatching(peer);
      return listing.services;
    } finally {
      hold.cancel();
      await this.release();
    }
  }

  #keepWatching(peer: Peer): void {
    this.#idle?.cancel();
    this.#idle = systemClock.after(IDLE_MS, () => this.#watch?.abort());
    if (this.#watch !== undefined) return;
    const watch = new AbortController();
    this.#watch = watch;
    this.#users++;
    void (async () => {
      try {
        for await (const _ of peer.follow(watch.signal)) if (watch.signal.aborted) break;
      } finally {
        this.#watch = undefined;
        await this.release();
      }
    })();
  }
}

const tailnets = new Map<string, Tailnet>();

/** The tailnet of the tailscaled that the environment names, else of this host's. */
function ownTailnet(): Tailnet {
  const path = environment("TS_SOCKET") ?? DEFAULT_SOCKET;
  const known = tailnets.get(path) ?? new Tailnet(path);
  tailnets.set(path, known);
  return known;
}

/** The agent's answer; without an agent, and unless one was named, the tailnet's. */
async function either<T>(
  options: ClientOptions,
  wanted: (found: Found) => boolean,
  agent: () => Promise<T>,
  peers: (services: readonly Found[]) => T,
): Promise<T> {
  try {
    return await agent();
  } catch (error) {
    if (options.agent !== undefined || !isNoAgent(error)) throw error;
    try {
      return peers(await ownTailnet().services(wanted, options.signal));
    } catch (second) {
      if (options.signal?.aborted || !(second instanceof TrilithError)) throw second;
      throw new TrilithError(error.code, `${error.message}; and there is no tailnet either: ${second.message}`, second);
    }
  }
}

/**
 * The endpoints of a service that can be used now, in random order; those with all of `labels`. Asks the agent of this host; where none answers
 * (and `agent` names none), the hosts of the tailnet, as Minidisc does. An unknown service has no endpoints (`known: false`).
 * @throws TrilithError `unavailable` or `not-found` where there is neither; InputError for an option that there is not, and a wrong value
 */
export async function find(service: string, labels: Labels = {}, options: FindOptions = {}): Promise<FindJson> {
  mustBe("find: the service's name", service, text);
  mustBe("find: the labels", labels, areLabels);
  mustFit("find", options, FIND);
  const { tags = [] } = options;
  const isWanted = (found: Found): boolean => isSought(found, { service, labels, tags });
  return await either(
    options,
    isWanted,
    () => findByAgent(service, labels, options),
    (services) => {
      const named = services.filter(({ name }) => name === service);
      const wanted = named.filter(isWanted);
      return {
        service,
        known: named.length > 0,
        fresh: wanted.every(({ fresh }) => fresh),
        ageMs: Math.max(0, ...wanted.filter(({ fresh }) => !fresh).map(({ ageMs }) => ageMs)),
        index: 0,
        endpoints: shuffle(wanted.map(endpointOf), systemRandom),
      };
    },
  );
}

function endpointOf({ name, address, port, node, health, tags, labels }: Found): FindJson["endpoints"][number] {
  return { address, port, weight: 1, node, id: `${name}-${hostPort(address, port)}`, status: health, tags, labels };
}

/** All services with counts of their instances by health; from whom as with `find`. @throws as `find` */
export async function list(options: ClientOptions = {}): Promise<readonly ListedJson[]> {
  mustFit("list", options, ASK);
  return await either(
    options,
    () => true,
    () => listByAgent(options),
    (services) => {
      return [...grouped(services)]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([name, all]) => ({
          name,
          instances: all.length,
          passing: all.filter(({ health }) => health === "passing").length,
          warning: all.filter(({ health }) => health === "warning").length,
          critical: 0,
          draining: 0,
          maintenance: 0,
          held: 0,
          tags: [...new Set(all.flatMap(({ tags }) => tags))].sort(),
        }));
    },
  );
}

function grouped(services: readonly Found[]): Map<string, Found[]> {
  const byName = new Map<string, Found[]>();
  for (const each of services) byName.set(each.name, [...(byName.get(each.name) ?? []), each]);
  return byName;
}

/**
 * Registers a service of this process with the agent of this host. While none answers (and `agent` names none), this process itself tells the
 * hosts of the tailnet, as Minidisc does, until the agent is there. Resolves when either has it, within seconds also where there is neither:
 * both are looked for until `stop`, and `onState` says what is missing. Dies with the process; keeps no process running by itself.
 * @throws TrilithError `invalid` (name, port), and what the agent refuses
 */
export async function advertise(options: AdvertiseOptions): Promise<Advertised> {
  mustFit("advertise", options, ADVERTISE);
  mustBe("advertise: name", options?.name, text);
  mustBe("advertise: port", options.port, wholeNumber(1, 65_535));
  if (options.agent !== undefined || options.protocol === "udp" || isLoopback(options.address ?? ""))
    return await advertiseByAgent(options);
  const own = new OnTailnet(options);
  let first: ((done: Promise<void>) => void) | undefined;
  const settled = new Promise<void>((resolve) => {
    first = (done) => void done.then(resolve);
  });
  const hold = systemClock.after(IDLE_MS, () => {}, true);
  try {
    const atAgent = await advertiseByAgent({
      ...options,
      onState(state, text) {
        const done = own.be(state === "connected" ? undefined : text, (told) => options.onState?.(state, told));
        first?.(done);
        first = undefined;
      },
    });
    await settled;
    return {
      get registered(): boolean {
        return atAgent.registered || own.told;
      },
      async drain(draining = true) {
        own.drain(draining);
        await atAgent.drain(draining);
      },
      async stop() {
        await Promise.all([atAgent.stop(), own.stop()]);
      },
    };
  } catch (error) {
    await own.stop();
    throw error;
  } finally {
    hold.cancel();
  }
}

/** What this process tells the tailnet by itself while no agent does. */
class OnTailnet {
  readonly #options: AdvertiseOptions;
  readonly #tailnet = ownTailnet();
  #draining = false;
  #stopped = false;
  #peer: Peer | undefined;
  #advertised: Advertisement | undefined;
  #turn: Promise<void> = Promise.resolve();

  constructor(options: AdvertiseOptions) {
    this.#options = options;
  }

  get told(): boolean {
    const role = this.#peer?.state().role?.role;
    return !this.#draining && (role === "leader" || role === "delegate");
  }

  /** `away`: why the agent does not have it; undefined = it does. `tell` gets the whole truth for people. */
  be(away: string | undefined, tell: (text: string) => void): Promise<void> {
    this.#turn = this.#turn.then(async () => {
      if (away === undefined || this.#stopped) {
        await this.#end();
        if (!this.#stopped) tell("");
        return;
      }
      this.#peer ??= await this.#tailnet.take();
      this.#advertised ??= await this.#peer.advertise(this.#offers());
      const { text } = this.#peer.state();
      tell(`${away}; ${this.told ? `told to the tailnet by this program, which ${text}` : text}`);
    });
    return this.#turn;
  }

  drain(draining: boolean): void {
    this.#draining = draining;
    this.#advertised?.update(this.#offers());
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#turn;
    await this.#end();
  }

  #offers(): Parameters<Peer["advertise"]>[0] {
    const { name, port, address = "", labels = {}, tags = [] } = this.#options;
    return this.#draining ? [] : [{ name, port, address, labels, tags }];
  }

  async #end(): Promise<void> {
    this.#advertised?.stop();
    this.#advertised = undefined;
    if (this.#peer === undefined) return;
    this.#peer = undefined;
    await this.#tailnet.release();
  }
}

const isLoopback = (host: string): boolean => host === "localhost" || host === "::1" || host.startsWith("127.");
