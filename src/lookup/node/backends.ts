// The backends of a service that a program follows, with what its instances ask for in their labels.
import type { Backend, Backends } from "../../contracts/connect.ts";
import { connectWishes } from "../../wire/connect-labels.ts";
import { inOneOrder, type Names } from "../grpc/names.ts";

const made = new WeakMap<Names["endpoints"], Omit<Backends, "fresh" | "known">>();

/** The same endpoints give the same list, which a balancer looks for. */
export function backendsOf({ endpoints, known, fresh }: Names): Backends {
  let found = made.get(endpoints);
  if (found === undefined) {
    const { policy, tryMs, locality } = connectWishes(endpoints.map(({ labels }) => labels));
    found = {
      endpoints: endpoints
        .flatMap(({ addresses: [first], weight, tier = 2 }): Backend[] =>
          first === undefined
            ? []
            : [{ address: first.host, port: first.port, weight, tier: locality === false ? 2 : tier }],
        )
        .sort((a, b) => inOneOrder({ host: a.address, port: a.port }, { host: b.address, port: b.port })),
      ...(policy === undefined ? {} : { policy }),
      ...(tryMs === undefined ? {} : { tryMs }),
    };
    made.set(endpoints, found);
  }
  return { ...found, known, fresh };
}
