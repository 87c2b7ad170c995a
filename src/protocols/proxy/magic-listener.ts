// Listens on the magic addresses of the services that exist, for programs on this host that have no hook.
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import type { Directory } from "../../contracts/directory.ts";
import type { Lookup } from "../../contracts/lookup.ts";
import { MAGIC_LISTENER, type Magic } from "../../contracts/magic.ts";
import type { Listener } from "../../contracts/protocol.ts";
import type { MagicConfig } from "./config.ts";
import { magicPorts } from "./magic-ports.ts";
import type { Ports, WantedPort } from "./ports.ts";

export interface MagicParts {
  readonly config: MagicConfig;
  readonly directory: Pick<Directory, "view" | "changed" | "ready">;
  readonly lookup: Pick<Lookup, "resolveNow">;
  readonly magic: Pick<Magic, "of" | "kept" | "range">;
  readonly ports: Ports;
  /** This host's node. */
  readonly node: () => string;
  readonly clock: Clock;
  readonly log: Log;
}

/** A burst of registrations is one look. */
const GATHER_MS = 100;
/** What only the guard keeps ends without a change in the directory; ports that are taken may be free. */
const LOOK_AGAIN_MS = 5_000;

export interface MagicListener extends Listener {
  /** How many ports there is no room for. */
  beyond(): number;
}

/** See `MagicParts`. */
export function createMagicListener(parts: MagicParts): MagicListener {
  const { config, directory, lookup, magic, ports, clock, log } = parts;
  const stop = new AbortController();
  /** Ports of instances that ever ran here: they come back. */
  const own = new Set<number>();
  let wantedBefore = new Map<string, readonly WantedPort[]>();
  let beyond = 0;
  let running: Promise<void> | undefined;

  const look = (): readonly WantedPort[] => {
    const view = directory.view();
    const self = parts.node();
    for (const { instance } of view.residentsOn(self)) if (instance.port > 0) own.add(instance.port);
    const next = new Map<string, readonly WantedPort[]>();
    const names = new Set([...view.serviceNames()].map((name) => name.toLowerCase()));
    for (const service of names) {
      const wanted = magicPorts(service, view.residents(service), config, own);
      if (wanted.length === 0) continue;
      const host = magic.of({ service }).v4;
      next.set(
        service,
        wanted.map(({ port, protocol, why }) => ({
          host,
          port,
          protocol,
          query: { service },
          options: { name: `${service}:${port}${protocol === "udp" ? "/udp" : ""}` },
          insist: why === "configured",
        })),
      );
    }
    // What the directory no longer has and the guard still answers stays.
    for (const [service, wanted] of wantedBefore)
      if (!names.has(service) && lookup.resolveNow({ service, asker: "127.0.0.1" }).known) next.set(service, wanted);
    wantedBefore = next;
    const all = [...next.values()].flat();
    beyond = Math.max(0, all.length - config.most);
    return all.slice(0, config.most);
  };

  const watch = async (): Promise<void> => {
    await directory.ready(stop.signal);
    while (!stop.signal.aborted) {
      const after = directory.view().index;
      try {
        const wanted = look();
        await magic.kept();
        await ports.want(wanted);
      } catch (error) {
        log.error(`magic addresses: ${messageOf(error)}`);
      }
      const again = new AbortController();
      const onStop = (): void => again.abort();
      stop.signal.addEventListener("abort", onStop, { once: true });
      if (stop.signal.aborted) onStop();
      await Promise.race([
        directory.changed("services", after, again.signal),
        clock.sleep(LOOK_AGAIN_MS, again.signal),
      ]).catch(() => {});
      stop.signal.removeEventListener("abort", onStop);
      again.abort();
      await clock.sleep(GATHER_MS, stop.signal).catch(() => {});
    }
  };

  return {
    name: MAGIC_LISTENER,
    beyond: () => beyond,
    async start() {
      running ??= watch().catch((error: unknown) => {
        if (!stop.signal.aborted) log.error(`magic addresses are not kept any more: ${messageOf(error)}`);
      });
      return magic.range.v4.text;
    },
    async stop() {
      stop.abort(new Error("the agent is stopping"));
      await running;
    },
  };
}
