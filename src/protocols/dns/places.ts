// Where this program's DNS listens, so that it never asks itself.
import type { Net } from "../../base/net.ts";

/** Where DNS listens at the moment. */
export interface Places {
  add(host: string, port: number): void;
  remove(host: string, port: number): void;
  /** True where a question sent to that address would come back to this program. */
  isOwn(host: string, port: number): boolean;
}

/** See `Places`. */
export function createPlaces(net: Pick<Net, "interfaces">): Places {
  const hosts = new Map<number, Set<string>>();
  return {
    add(host, port) {
      const here = hosts.get(port) ?? new Set();
      hosts.set(port, here.add(host));
    },
    remove(host, port) {
      hosts.get(port)?.delete(host);
    },
    isOwn(host, port) {
      const here = hosts.get(port);
      if (here === undefined) return false;
      if (here.has(host)) return true;
      const everywhere = here.has("::") || (here.has("0.0.0.0") && !host.includes(":"));
      return everywhere && (host.startsWith("127.") || net.interfaces().some(({ address }) => address === host));
    },
  };
}
