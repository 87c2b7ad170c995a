// Where programs in other network namespaces (containers) reach this host: what the table tells them to use in the place of 127.0.0.1.
import type { Clock } from "../../base/clock.ts";
import { type Interface, ipFamily } from "../../base/net.ts";
import type { NetworkNamespace } from "../../base/network-namespace.ts";
import { CONTAINER_BRIDGE } from "../../base/networks.ts";
import type { TableHost } from "../../wire/hook-table.ts";

export interface HostParts {
  readonly clock: Pick<Clock, "monotonic">;
  /** This process's network namespace. */
  readonly network: () => NetworkNamespace | undefined;
  readonly interfaces: () => readonly Interface[];
  /** The address by which this host speaks to the rest of the world; undefined where there is no way there. */
  readonly outward: (family: 4 | 6) => Promise<string | undefined>;
  /** The address that this host's agent tells others. */
  readonly advertised: () => string;
}

/** This host's address as it is now. */
export interface HostView {
  /** Absent where the system does not tell which network this is. */
  readonly now: TableHost | undefined;
  /** Looks again where something may have changed. True where another address is told now. */
  refresh(): Promise<boolean>;
}

/** A default route may change while all interfaces stay. */
const LOOK_MS = 30_000;

const isUsable = (address: string): boolean => !/^(0\.|127\.|169\.254\.|fe[89ab][0-9a-f]:|::1?$)/i.test(address);

/** See `HostView`. Knows nothing before the first `refresh`. */
export function createHostView(parts: HostParts): HostView {
  const { clock, interfaces, outward, advertised } = parts;
  const network = parts.network();
  let known = "";
  let lookedMs = 0;
  let now: TableHost | undefined;

  const addressOf = async (family: 4 | 6, own: readonly Interface[]): Promise<string | undefined> => {
    const told = advertised();
    if (own.some(({ address }) => address === told) && ipFamily(told) === family) return told;
    const leaves = await outward(family);
    if (leaves !== undefined && isUsable(leaves)) return leaves;
    const ofFamily = own.filter((each) => each.family === family);
    return (ofFamily.find(({ name }) => CONTAINER_BRIDGE.test(name)) ?? ofFamily[0])?.address;
  };

  return {
    get now() {
      return now;
    },
    async refresh() {
      if (network === undefined) return false;
      const own = interfaces().filter(({ internal, address }) => !internal && isUsable(address));
      const text = JSON.stringify([advertised(), own]);
      if (text === known && clock.monotonic() - lookedMs < LOOK_MS) return false;
      known = text;
      lookedMs = clock.monotonic();
      const [v4, v6] = await Promise.all([addressOf(4, own), addressOf(6, own)]);
      const before = now;
      now = { network, ...(v4 === undefined ? {} : { v4 }), ...(v6 === undefined ? {} : { v6 }) };
      return before === undefined || before.v4 !== v4 || before.v6 !== v6;
    },
  };
}
