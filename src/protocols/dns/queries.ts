// Names of prepared queries.
import { codeOf } from "../../base/error.ts";
import type { PreparedAnswer } from "../../contracts/prepared.ts";
import { RCODE } from "../../wire/dns/index.ts";
import { parseGoDuration } from "../../wire/duration.ts";
import { type Asking, type Reply, reply } from "./asking.ts";
import { serviceTtlMs } from "./config.ts";
import { datacenterOf, type InZone } from "./names.ts";
import type { Subjects } from "./subjects.ts";
import { clientSubnet, subnetAddress } from "./subnet.ts";

/** Answers for prepared queries. */
export class Queries {
  readonly #all: Subjects;

  constructor(all: Subjects) {
    this.#all = all;
  }

  /** `name.query.D`, `_name._tcp.query.D`: what the query of that name or ID gives. */
  prepared(asking: Asking, asked: InZone): Reply {
    const { prepared, self } = this.#all.parts;
    const datacenter = datacenterOf(asked.suffix);
    // Consul knows no ".dc" here.
    if (datacenter === false || (this.#all.policy.compat && asked.suffix.length > 1))
      return this.#all.zone.no(asking, RCODE.NXDOMAIN);
    const here = this.#all.zone.isOwnDatacenter(datacenter);
    const [first = ""] = asked.parts;
    if (first === "") return this.#all.zone.empty(asking, () => here);
    if (!here && !prepared.elsewhere(datacenter)) return this.#all.zone.no(asking, RCODE.NXDOMAIN);
    // `_name._tcp`, the name with dots or without: the last label says nothing.
    const rfc2782 = asked.parts.length >= 2 && first.startsWith("_") && asked.parts.at(-1)?.startsWith("_");
    const name = rfc2782 ? asked.parts.slice(0, -1).join(".").slice(1) : asked.parts.join(".");
    let answer: PreparedAnswer | undefined;
    try {
      answer = this.#executed(asking, name, datacenter);
    } catch (error) {
      // A template that comes to nothing, or one that was asked for by its ID.
      if (codeOf(error) !== "invalid") throw error;
      return { ...reply(), rcode: RCODE.SERVFAIL };
    }
    if (answer === undefined)
      return this.#all.zone.empty(asking, () =>
        prepared.list(asking.view).some((query) => query.name.toLowerCase().endsWith(`.${name}`)),
      );
    const { endpoints, service, ttl } = answer;
    if (endpoints.length === 0) return this.#all.zone.empty(asking, () => true);
    const ttlMs =
      ttl === "" ? serviceTtlMs(this.#all.policy.serviceTtlMs, service.toLowerCase()) : parseGoDuration(ttl);
    const where = answer.datacenter === "" ? self.datacenter : answer.datacenter;
    return this.#all.endpoints.told(asking, asked, endpoints, Math.floor(ttlMs / 1000), where.toLowerCase());
  }

  /** From what is known here; who else has to be asked is asked where somebody waits for it. */
  #executed(asking: Asking, name: string, datacenter: string | undefined): PreparedAnswer | undefined {
    const { prepared } = this.#all.parts;
    const { edns, errands, family, from } = asking;
    const subnet = edns === undefined ? undefined : clientSubnet(edns);
    const options = {
      asker: (subnet === undefined ? undefined : subnetAddress(subnet)) ?? from.address,
      ...(datacenter === undefined ? {} : { datacenter }),
      ...(family === undefined ? {} : { family }),
    };
    const bring = (): Promise<PreparedAnswer | undefined> =>
      this.#all.services.within(name, (limit) => prepared.execute(name, options, limit));
    const key = `query ${name} ${datacenter ?? ""}`;
    if (prepared.elsewhere(datacenter)) return errands?.get(key, bring)?.value;
    const now = prepared.executeNow(name, options);
    return now?.more && errands !== undefined ? (errands.get(key, bring)?.value ?? now) : now;
  }
}
