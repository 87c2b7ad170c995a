// What becomes of a program's names, connections and datagrams: by the hook's table and a balancer.
import type { Dial, OwnAddresses, Rewrite, Try } from "../../base/node-hook.ts";
import type { TableBackend } from "../../wire/hook-table.ts";
import type { IndexedService } from "../../wire/hook-table-index.ts";
import type { Balancer, Target } from "../balance/balancer.ts";
import type { CurrentTable } from "./table.ts";

export interface RewriteParts {
  readonly table: CurrentTable;
  readonly balancer: Balancer;
  /** Who this program is, for policy "sticky". */
  readonly caller: string;
}

/** The backends that can be reached from one kind of socket. */
interface Reachable {
  /** For the balancer: one list for each service and kind of socket. */
  readonly name: string;
  readonly backends: readonly TableBackend[];
}

/** Of more backends than these only so many are tried for one connection; their order is chosen for so many more at a time. */
const MOST_TRIES = 128;
const A_FEW = 16;

const isV6 = ({ address }: TableBackend): boolean => address.includes(":");

/** See `Rewrite`. */
export function createRewrite({ table, balancer, caller }: RewriteParts): Rewrite {
  const lists = new WeakMap<IndexedService, Map<string, Reachable>>();
  /** Datagrams of one socket to one service go to one backend as long as it is there. */
  const spoken = new WeakMap<object, Map<number, Target<TableBackend>>>();

  const reachable = (service: IndexedService, family: 4 | 6, protocol: "tcp" | "udp"): Reachable => {
    const kind = `${protocol}${family}`;
    let kinds = lists.get(service);
    if (kinds === undefined) {
      kinds = new Map();
      lists.set(service, kinds);
    }
    let found = kinds.get(kind);
    if (found === undefined) {
      // An IPv6 socket reaches IPv4, too, by mapped addresses.
      const backends = service.backends.filter(
        (each) => (each.only ?? protocol) === protocol && (family === 6 || !isV6(each)),
      );
      found = { name: `${service.subject} ${kind}`, backends };
      kinds.set(kind, found);
    }
    return found;
  };

  const choose = (
    service: IndexedService,
    family: 4 | 6,
    protocol: "tcp" | "udp",
    port: number,
    who: string,
    limit: number,
  ): readonly Target<TableBackend>[] => {
    const { name, backends } = reachable(service, family, protocol);
    return balancer.order(name, backends, { policy: service.policy, caller: who, port, limit });
  };

  const addressOf = ({ backend }: Target<TableBackend>, family: 4 | 6): string =>
    family === 6 && !isV6(backend) ? `::ffff:${backend.address}` : backend.address;

  const addresses = new WeakMap<IndexedService, OwnAddresses>();
  const ownAddresses = (service: IndexedService): OwnAddresses => {
    const known = addresses.get(service);
    if (known !== undefined) return known;
    // Who asks for both is given what leads somewhere, first what leads to more: a program's own choice between them takes time.
    const v6 = service.backends.filter(isV6).length;
    const v4 = service.backends.length - v6;
    const any: (4 | 6)[] = v6 > v4 ? [6] : [4];
    if (v6 > v4 && v4 > 0) any.push(4);
    if (v6 <= v4 && v6 > 0) any.push(6);
    const found = { ...table.addressesOf(service), any };
    addresses.set(service, found);
    return found;
  };

  let sockets = 0;

  return {
    name(host) {
      const service = table.named(host);
      if (service === undefined) return undefined;
      if (service instanceof Promise) return service.then((found) => (found ? ownAddresses(found) : undefined));
      return ownAddresses(service);
    },
    isOwn: (address) => table.at(address) !== undefined,
    connection(address, port, family): Dial | undefined {
      const found = table.at(address);
      if (found === undefined) return undefined;
      let service: IndexedService = found;
      // As a rule the first one takes it: the order of the others is chosen when it is needed.
      let order = choose(service, family, "tcp", port, caller, 1);
      const tried = new Set<string>();
      const keyOf = (backend: TableBackend): string => `${backend.address} ${backend.port}`;
      const untried = (): Target<TableBackend> | undefined => order.find(({ backend }) => !tried.has(keyOf(backend)));
      return (): Try | undefined => {
        if (tried.size >= MOST_TRIES) return undefined;
        // A backend that came while others were tried is as good as those that were there.
        const now = tried.size === 0 ? service : (table.at(address) ?? service);
        let target = now === service ? untried() : undefined;
        if (target === undefined) {
          // By what was seen meanwhile: those that failed come last.
          service = now;
          order = choose(service, family, "tcp", port, caller, tried.size + A_FEW);
          target = untried();
        }
        if (target === undefined) return undefined;
        const { backends } = reachable(service, family, "tcp");
        tried.add(keyOf(target.backend));
        return {
          address: addressOf(target, family),
          port: target.port,
          ...(tried.size < Math.min(backends.length, MOST_TRIES) ? { limitMs: service.tryMs } : {}),
          ended: (outcome) => balancer.report(target, outcome),
        };
      };
    },
    datagram(address, port, family, socket) {
      const service = table.at(address);
      if (service === undefined) return undefined;
      let own = spoken.get(socket);
      if (own === undefined) {
        own = new Map();
        spoken.set(socket, own);
      }
      let target = own.get(service.slot);
      const { backends } = reachable(service, family, "udp");
      const there = target?.backend;
      const stays = backends.some(
        (each) => each.address === there?.address && each.port === there.port && !each.suspect,
      );
      if (!stays) {
        target = choose(service, family, "udp", port, `${caller}#${sockets++}`, 1)[0];
        if (target === undefined) own.delete(service.slot);
        else own.set(service.slot, target);
      }
      if (target === undefined) return "nobody";
      return { address: addressOf(target, family), port: target.backend.port || port };
    },
  };
}
