// The protocol "shim": writes the table by which hooked programs on this host find services without asking anybody, and learns from what they see.
import { isDeepStrictEqual } from "node:util";
import type { Timer } from "../../base/clock.ts";
import { isAlive } from "../../base/counter-file.ts";
import { messageOf } from "../../base/error.ts";
import { readForeignFile, removeForeignFile } from "../../base/mapped-file.ts";
import { hostPort } from "../../base/net.ts";
import { outwardAddress, ownNetworkNamespace } from "../../base/network-namespace.ts";
import { ownAddresses } from "../../base/networks.ts";
import { HOOK_FOLDERS, sweepTemporaryFolders } from "../../base/temporary-folder.ts";
import { defineProtocol, type Protocol, type Told } from "../../contracts/protocol.ts";
import type { TableBackend, TableHost, TableService } from "../../wire/hook-table.ts";
import { Composer } from "./composer.ts";
import { configure, type ShimConfig } from "./config.ts";
import { clearForgotten } from "./forgotten.ts";
import { createHostView } from "./host.ts";
import { createHostnames } from "./hostnames.ts";
import { createKeeper } from "./keeper.ts";
import type { Zone } from "./names.ts";
import { emptyLeftTable, emptyText, openPlace } from "./place.ts";
import { createHookHandler, PREFIX } from "./route.ts";
import { backendKey, createSuspicions } from "./suspicions.ts";
import { answersAbout, hookStates } from "./tell.ts";
import { TableWriter } from "./writer.ts";

const SWEEP_AGAIN_MS = 120_000;
const SWEEP_LATER_MS = 6 * 3_600_000;
const NEEDS = [
  "clock",
  "random",
  "log",
  "disk",
  "net",
  "metrics",
  "directory",
  "agent",
  "lookup",
  "magic",
  "self",
  "firstLists",
] as const;

export const shim: Protocol<ShimConfig, (typeof NEEDS)[number]> = defineProtocol({
  name: "shim",
  needs: NEEDS,
  configure,
  async setup(first, ground) {
    const { clock, random, disk, net, metrics, directory, agent, lookup, magic, self } = ground;
    const log = ground.log.part("hook");
    if (first.off) {
      // What a run before left there nobody writes any more.
      if (first.table !== undefined)
        await emptyLeftTable(first.table, disk, clock.now()).catch((error: unknown) =>
          log.warn(emptyText(first.table as string, error)),
        );
      return undefined;
    }
    let config = first;
    const zoneOf = ({ altDomain }: ShimConfig): Zone => ({
      ...{ domain: self.domain, datacenter: self.datacenter.toLowerCase() },
      ...(altDomain === undefined ? {} : { altDomain }),
    });
    let zone = zoneOf(config);
    let backends: ReadonlySet<string> = new Set();
    let of: readonly TableService[] | undefined;
    const suspicions = createSuspicions({
      clock,
      random,
      disk,
      read: readForeignFile,
      net,
      metrics,
      backends: () => {
        const now = composer.table();
        if (now !== of) backends = triable(now);
        of = now;
        return backends;
      },
      beside: (address, port) => beside(composer.table(), address, port),
      meant: (address, port) => meant(composer.table(), host.now, address, port),
      changed(address, port, { suspect, news, refused }) {
        const services = composer.servicesAt(address, port);
        if (refused) for (const service of services) lookup.confirmLost(service, address, port);
        if (!news) return;
        log.info(
          suspect
            ? `${hostPort(address, port)} (${services.join(", ")}) is out of the hook's choice: it ${refused ? "refuses connections" : "does not answer"}`
            : `${hostPort(address, port)} (${services.join(", ")}) takes connections again`,
        );
        keeper.ring(services);
      },
    });
    const hostnames = createHostnames({
      clock,
      random,
      net,
      used: () => composer.hostnames(),
      changed: (hostname) => keeper.ring(composer.servicesWith(hostname)),
    });
    const composer = new Composer({
      clock,
      lookup,
      magic,
      own: () => agent.node,
      ownAddresses: () => ownAddresses(() => net.interfaces()),
      zone: () => zone,
      defaults: () => config,
      isSuspect: suspicions.isSuspect,
      addressesOf: hostnames.addressesOf,
    });
    const host = createHostView({
      clock,
      network: ownNetworkNamespace,
      interfaces: () => net.interfaces(),
      outward: outwardAddress,
      advertised: () => self.advertiseAddress,
    });
    const keeper = createKeeper({
      clock,
      log,
      directory,
      lookup,
      composer,
      open: () => openPlace(config.table, disk),
      writerFor: (place) => new TableWriter(place, { magic, composer, domain: self.domain, host, clock }),
      atOnce: config.table !== undefined,
      firstLists: ground.firstLists ?? (() => Promise.resolve()),
      surroundings: () => JSON.stringify([net.interfaces(), agent.node.labels]),
      opened: ({ file, observed, limits }) => {
        suspicions.watch(observed);
        if (config.placed && limits?.shut === true) log.warn(`the table ${file.path}: ${limits.text}`);
      },
    });
    /** Agents that kept nothing on disk and were killed left their tables behind, and programs what they saw. */
    const sweep = async (): Promise<void> => {
      try {
        for (const path of await sweepTemporaryFolders(HOOK_FOLDERS, clock.now()))
          log.info(`removed ${path}, which an agent that was killed had left`);
      } catch (error) {
        log.warn(`what killed agents left in the temporary folder stays there: ${messageOf(error)}`);
      }
      const observed = keeper.standing().place?.observed;
      if (observed === undefined) return;
      try {
        const parts = { now: () => clock.now(), disk, read: readForeignFile, remove: removeForeignFile, isAlive };
        const gone = await clearForgotten(observed, parts);
        if (gone.length > 0) log.info(`removed what programs that are long gone saw: ${gone.join(", ")}`);
      } catch (error) {
        log.warn(`what programs that are long gone saw stays in ${observed}: ${messageOf(error)}`);
      }
    };
    let sweeping: Promise<void> = Promise.resolve();
    let again: Timer | undefined;
    const sweepAfter = (ms: number): void => {
      again = clock.after(ms, () => {
        sweeping = sweep();
        sweepAfter(SWEEP_LATER_MS);
      });
    };
    metrics.gauge(
      "hook_table_generation",
      "How often the hook's table was written",
      () => keeper.standing().written?.generation ?? 0,
    );
    metrics.gauge(
      "hook_table_services",
      "Services and tags in the hook's table",
      () => keeper.standing().written?.services ?? 0,
    );
    metrics.gauge("hook_table_bytes", "Size of the hook's table", () => keeper.standing().written?.bytes ?? 0);
    metrics.gauge("hook_suspects", "Backends that the agent itself found refusing", () => suspicions.count());
    return {
      routes: [{ prefix: PREFIX, handle: createHookHandler({ clock, log, keeper }) }],
      states: () => hookStates({ clock, keeper, composer, suspicions, placed: config.placed, host }),
      async answers(service): Promise<readonly Told[]> {
        return answersAbout(composer.subjectsOf(service), composer.complaintsAbout(service), magic);
      },
      background: {
        start() {
          keeper.start();
          sweeping = sweep();
          // What was killed a moment ago is too young at first.
          sweepAfter(SWEEP_AGAIN_MS);
        },
        async stop(off) {
          again?.cancel();
          await sweeping;
          hostnames.stop();
          await suspicions.stop();
          await keeper.stop(off);
        },
      },
      rereads: true,
      async reload(read) {
        if (read === undefined) return;
        const { table: wanted, ...now } = configure(read.raw);
        const { table, placed } = config;
        if (wanted !== table)
          log.warn(
            "hook.table is another one now: it counts after a restart, as programs that run look for the table where it is",
          );
        const before = config;
        config = { ...now, placed, ...(table === undefined ? {} : { table }) };
        if (isDeepStrictEqual(config, before)) return;
        if (config.altDomain !== before.altDomain) zone = zoneOf(config);
        // Only services that stand differently by it are written anew, and no address is another one.
        keeper.ring(composer.names());
      },
    };
  },
});

/** True of what a TCP connection can be tried to. */
const isTriable = ({ port, only }: TableBackend): boolean => port !== 0 && only !== "udp";

function triable(services: readonly TableService[]): ReadonlySet<string> {
  const keys = new Set<string>();
  for (const { backends } of services)
    for (const each of backends) if (isTriable(each)) keys.add(backendKey(each.address, each.port));
  return keys;
}

/** The backends that programs speak of: in other network namespaces they reach this host's loopback by another address. */
function meant(
  services: readonly TableService[],
  host: TableHost | undefined,
  address: string,
  port: number,
): readonly { readonly address: string; readonly port: number }[] {
  if (host === undefined || (address !== host.v4 && address !== host.v6)) return [{ address, port }];
  const loopback = address === host.v4 ? /^127\./ : /^::1$/;
  const found = new Map<string, TableBackend>();
  for (const { backends } of services)
    for (const each of backends)
      if (each.port === port && loopback.test(each.address) && isTriable(each)) found.set(each.address, each);
  return [{ address, port }, ...found.values()];
}

/** The others of all services that have this backend, each once. */
function beside(services: readonly TableService[], address: string, port: number): readonly TableBackend[] {
  const own = backendKey(address, port);
  const found = new Map<string, TableBackend>();
  for (const { backends } of services)
    if (backends.some((each) => each.port === port && each.address === address))
      for (const each of backends) if (isTriable(each)) found.set(backendKey(each.address, each.port), each);
  found.delete(own);
  return [...found.values()];
}
