// The claim of the host's own name: addresses of each interface, their reverse names, and another name after a conflict.
import type { Log } from "../../../base/log.ts";
import type { Interface } from "../../../base/net.ts";
import { ipBytes, labelFromText, type Name, reverseName, textFromLabel } from "../../../wire/dns/index.ts";
import type { Link } from "./link.ts";
import { fitted, HOST_TTL_S, LOCAL, nameKey, nextHostName } from "./names.ts";
import { type Owned, owned } from "./records.ts";
import type { Spec } from "./standing.ts";

/** The host's name and what is said under it. */
export class Host implements Omit<Spec, "patienceMs"> {
  readonly sharedOnHost = true;
  readonly #log: Log;
  readonly #renamed: () => void;
  readonly #changed: () => void;
  #label: string;
  /** Reverse names that somebody else speaks for. */
  readonly #yielded = new Set<string>();

  /** `renamed`: the claims must be brought into line. */
  constructor(label: string, log: Log, renamed: () => void, changed: () => void) {
    this.#label = labelFromText(fitted(label.split(".")[0] || "localhost", ""));
    this.#log = log;
    this.#renamed = renamed;
    this.#changed = changed;
  }

  get name(): Name {
    return [this.#label, ...LOCAL];
  }

  records(link: Link): Owned[] {
    const records: Owned[] = [];
    const reverse: Owned[] = [];
    for (const { address, family } of published(link.addresses)) {
      records.push(
        owned(this.name, family === 4 ? { kind: "A", address } : { kind: "AAAA", address }, HOST_TTL_S, true),
      );
      const bytes = ipBytes(address);
      if (bytes === undefined) continue;
      const name = reverseName(bytes);
      if (!this.#yielded.has(nameKey(name)))
        reverse.push(owned(name, { kind: "PTR", target: this.name }, HOST_TTL_S, true));
    }
    return [...records, ...reverse];
  }

  conflict(key: string): void {
    // Another stack on this host, or a stranger with our address: its trouble is not solved by taking another name.
    if (key !== nameKey(this.name)) this.#yielded.add(key);
    else {
      const before = textFromLabel(this.#label);
      this.#label = labelFromText(nextHostName(before));
      this.#log.warn(
        `another host on the LAN is called "${before}.local": this one is "${textFromLabel(this.#label)}.local" there`,
      );
    }
    this.#renamed();
  }

  changed(): void {
    this.#changed();
  }
}

/** The addresses of an interface that are told: link-local ones only where there are no others of their family, as Avahi does. */
function published(addresses: readonly Interface[]): Interface[] {
  const plain = addresses.map((a) => ({ ...a, address: a.address.replace(/%.*$/, "") }));
  const isLocal = ({ address }: Interface): boolean => /^fe[89ab]/i.test(address) || address.startsWith("169.254.");
  return plain.filter((a) => !isLocal(a) || !plain.some((b) => b.family === a.family && !isLocal(b)));
}
