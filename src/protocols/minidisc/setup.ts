// The protocol "minidisc": what hosts of a tailnet advertise enters the directory, and what runs here is advertised to them.
import { InputError, messageOf } from "../../base/error.ts";
import { hostPort } from "../../base/net.ts";
import { DEFAULT_SOCKET } from "../../base/tailnet.ts";
import type { View } from "../../contracts/directory.ts";
import { defineProtocol, type Protocol, type Told } from "../../contracts/protocol.ts";
import type { Source } from "../../contracts/source.ts";
import type { Registration } from "../../model/instance.ts";
import { keyOf } from "../../model/record.ts";
import { offersOf, SOURCE } from "./announce.ts";
import { listingsOf } from "./listings.ts";
import { type Advertisement, createPeer, type Peer, type SocksProxy } from "./peer.ts";
import { type Known, sourceListOf } from "./registrations.ts";

/** Under `protocols.minidisc` of the settings. */
export interface MinidiscConfig {
  readonly off: boolean;
  /** tailscaled's LocalAPI; TS_SOCKET, then tailscaled's usual one, where absent. */
  readonly socket?: string;
  /** Whether this host's own services are advertised. */
  readonly announce: boolean;
  /** tailscaled's SOCKS5 proxy, for userspace networking; ALL_PROXY where it names one. */
  readonly proxy?: SocksProxy;
}

const KEYS = '"socket", "announce" and "proxy"';

function configure(raw: unknown): MinidiscConfig {
  const usual = { off: false, announce: true };
  if (raw === undefined || raw === true) return usual;
  if (raw === false) return { ...usual, off: true };
  if (typeof raw !== "object" || raw === null || Array.isArray(raw))
    throw new InputError(
      "minidisc",
      `expected true, false or an object such as {"announce": false}, but got ${JSON.stringify(raw)}`,
    );
  const { socket, announce = true, proxy, ...unknown } = raw as Record<string, unknown>;
  const [strange] = Object.keys(unknown);
  if (strange !== undefined) throw new InputError(`minidisc.${strange}`, `unknown key; known are ${KEYS}`);
  if (socket !== undefined && (typeof socket !== "string" || socket === ""))
    throw new InputError(
      "minidisc.socket",
      `expected the path of tailscaled's socket, but got ${JSON.stringify(socket)}`,
    );
  if (typeof announce !== "boolean")
    throw new InputError("minidisc.announce", `expected true or false, but got ${JSON.stringify(announce)}`);
  const told = { off: false, announce, ...(socket === undefined ? {} : { socket }) };
  if (proxy === undefined) return told;
  const read = typeof proxy === "string" ? readProxy(proxy) : undefined;
  if (read === undefined)
    throw new InputError("minidisc.proxy", `expected "socks5://host:port", but got ${JSON.stringify(proxy)}`);
  return { ...told, proxy: read };
}

/** Reads `socks5://host:port` or `host:port`; undefined for anything else. */
export function readProxy(text: string): SocksProxy | undefined {
  const [, host, port] = /^(?:socks5h?:\/\/)?(\[[^\]]+\]|[^:/]+):(\d{1,5})\/?$/i.exec(text) ?? [];
  if (host === undefined || port === undefined || Number(port) > 65_535) return undefined;
  return { host: host.replace(/^\[|\]$/g, ""), port: Number(port) };
}

/** One peer for all of its users: made for the first, stopped with the last. */
class Shared {
  readonly #make: () => Peer;
  #peer: Peer | undefined;
  #users = 0;

  constructor(make: () => Peer) {
    this.#make = make;
  }

  get peer(): Peer | undefined {
    return this.#peer;
  }

  take(): Peer {
    this.#users++;
    this.#peer ??= this.#make();
    return this.#peer;
  }

  async release(): Promise<void> {
    if (--this.#users > 0) return;
    const peer = this.#peer;
    this.#peer = undefined;
    await peer?.stop();
  }
}

/** Changes so close to each other are told together. */
const TOGETHER_MS = 50;

type Needs = "clock" | "random" | "log" | "net" | "http" | "processes" | "directory" | "agent";

export const minidisc: Protocol<MinidiscConfig, Needs> = defineProtocol({
  name: SOURCE,
  needs: ["clock", "random", "log", "net", "http", "processes", "directory", "agent"],
  configure,
  setup(config, ground) {
    if (config.off) return undefined;
    const { clock, random, log, net, http, processes, directory, agent } = ground;
    const fromEnv = processes.env("ALL_PROXY") ?? processes.env("all_proxy") ?? "";
    const proxy = config.proxy ?? (/^socks5/i.test(fromEnv) ? readProxy(fromEnv) : undefined);
    const localApi = config.socket ?? processes.env("TS_SOCKET") ?? DEFAULT_SOCKET;
    const shared = new Shared(() =>
      createPeer({ clock, random, log, net, http, localApi, ...(proxy === undefined ? {} : { proxy }) }),
    );
    const source: Source = {
      name: SOURCE,
      state() {
        const state = shared.peer?.state();
        if (state === undefined)
          return { ok: true, begun: false, text: "not started; begins by itself when it appears" };
        return {
          ok: state.ok,
          text: state.absent ? `${state.text}; begins by itself when it appears` : state.text,
        };
      },
      async *watch(signal) {
        if (signal.aborted) return;
        const peer = shared.take();
        try {
          let before: readonly Registration[] = [];
          let told = "";
          await peer.looked(signal);
          if (signal.aborted) return;
          // Nothing can be lost where nothing was found before; else what was found is kept until the tailnet is back.
          if (!hasFound(directory.view())) yield { list: [], authority: "second-hand" };
          for await (const listing of listingsOf(peer, directory, signal)) {
            const whole = sourceListOf(listing, knownOf(directory.view()), before, clock.now());
            before = whole.list;
            const text = JSON.stringify([whole.list, whole.complaints]);
            if (text === told) continue;
            told = text;
            yield whole;
          }
        } finally {
          await shared.release();
        }
      },
    };
    const answers = async (service: string, signal: AbortSignal): Promise<readonly Told[]> => {
      const { peer } = shared;
      if (peer === undefined || peer.state().tailnet === undefined) return [];
      const found = await peer.find(service, {}, { signal });
      const text = found.map(({ address, port }) => hostPort(address, port)).join(", ");
      return [{ to: "the tailnet", text: `md find ${service}: ${text === "" ? "no matching service" : text}` }];
    };
    let stop: AbortController | undefined;
    let announcing: Promise<void> = Promise.resolve();
    const announce = async (signal: AbortSignal): Promise<void> => {
      const peer = shared.take();
      let advertised: Advertisement | undefined;
      try {
        const offers = () => {
          const own = peer.state().tailnet?.own;
          return offersOf({
            node: agent.node,
            services: agent.services().values(),
            checks: agent.checks().values(),
            own: [own?.ipv4, own?.ipv6].filter((each) => each !== undefined),
          });
        };
        advertised = await peer.advertise(offers(), signal);
        for (;;) {
          signal.throwIfAborted();
          // What was decided before the addresses were known is decided again.
          const now = agent.version();
          advertised.update(offers());
          const changes = new AbortController();
          const end = (): void => changes.abort(signal.reason);
          signal.addEventListener("abort", end, { once: true });
          try {
            await Promise.race([agent.changed(now, changes.signal), peer.moved(changes.signal)]);
          } finally {
            signal.removeEventListener("abort", end);
            changes.abort();
          }
          await clock.sleep(TOGETHER_MS, signal);
        }
      } catch (error) {
        if (!signal.aborted) log.part(SOURCE).error("nothing is advertised any more", { error: messageOf(error) });
      } finally {
        // The peer lives on where others use it.
        advertised?.stop();
        await shared.release();
      }
    };
    let { announce: announces } = config;
    let begun = false;
    const begin = (): void => {
      if (stop !== undefined) return;
      stop = new AbortController();
      announcing = announce(stop.signal);
    };
    const end = async (): Promise<void> => {
      stop?.abort();
      stop = undefined;
      await announcing;
    };
    return {
      source,
      answers,
      background: {
        start() {
          begun = true;
          if (announces) begin();
        },
        stop: end,
      },
      rereads: true,
      async reload(read) {
        if (read === undefined) return;
        const now = configure(read.raw);
        if (now.socket !== config.socket || JSON.stringify(now.proxy) !== JSON.stringify(config.proxy))
          log.part(SOURCE).warn("minidisc.socket or minidisc.proxy is another one now: it counts after a restart");
        announces = now.announce;
        if (!announces) await end();
        else if (begun) begin();
      },
    };
  },
});

const hasFound = (view: View): boolean => {
  for (const { origin } of view.list("node")) if (origin?.source === SOURCE) return true;
  return false;
};

function knownOf(view: View): Known {
  const ids = new Set<string>();
  for (const { id, external } of view.list("node")) if (id !== "" && external !== true) ids.add(id);
  return {
    hasNode: (id) => ids.has(id),
    hasService: (node, service, port) =>
      view
        .residentsOn(node)
        .some(
          ({ instance }) => instance.origin.source !== SOURCE && instance.name === service && instance.port === port,
        ),
    isTaken: (name) => {
      const node = view.get("node", keyOf.node(name));
      return node !== undefined && node.origin?.source !== SOURCE;
    },
  };
}
