// Browsing by DNS-SD [RFC 6763]: where, which types, which instances, and one instance described.
import type { View } from "../../contracts/directory.ts";
import type { Resident } from "../../model/instance.ts";
import type { Endpoint } from "../../model/query.ts";
import { txtOf } from "../../model/txt.ts";
import { labelFromText, MAX_NAME_BYTES, type Name, nameBytes, RCODE, TYPE } from "../../wire/dns/index.ts";
import { type Asking, type Reply, reply } from "./asking.ts";
import { type Browsed, comparedLabel, instanceLabel, readBrowsed, type SdType, sameType, typesOf } from "./browse.ts";
import { serviceTtlMs } from "./config.ts";
import { type InZone, serviceOf } from "./names.ts";
import { record, spotOf } from "./records.ts";
import type { Subjects } from "./subjects.ts";
import { hasTag } from "./words.ts";

/** Answers for those who browse. */
export class Browsing {
  readonly #all: Subjects;

  constructor(all: Subjects) {
    this.#all = all;
  }

  /** What a name of DNS-SD gives. */
  browse(asking: Asking, asked: InZone, browsed: Browsed): Reply {
    const { view, owner } = asking;
    const pointers = asking.type === TYPE.PTR || asking.type === TYPE.ANY;
    const made = reply();
    switch (browsed.what) {
      case "nothing":
        break;
      case "domains":
        if (pointers) made.answers.push(record(owner, 0, { kind: "PTR", target: asked.spelled }));
        break;
      case "types":
        if (!pointers) break;
        for (const { type } of this.#all.sdIndex(view).types.values())
          made.answers.push(record(owner, 0, { kind: "PTR", target: this.#typeName(type, asked) }));
        break;
      case "instances":
      case "instance": {
        const { of } = browsed;
        const services = this.#all.sdIndex(view).types.get(`${of.type} ${of.transport}`)?.services;
        if (services === undefined) return this.#unbrowsed(asking, asked);
        const tag = browsed.what === "instances" ? (browsed.tag ?? "") : "";
        const meant = (resident: Resident): boolean =>
          typesOf(resident.instance).some((type) => sameType(type, of)) &&
          (tag === "" || hasTag(resident.instance.tags, tag)) &&
          (browsed.what === "instances" || comparedLabel(instanceLabel(resident)) === browsed.label);
        const all = [...services];
        if (!all.some((service) => view.residents(service).some(meant))) return this.#unbrowsed(asking, asked);
        // `_sub` alone lies above names and is none itself.
        if (browsed.what === "instances" && browsed.tag === "") break;
        for (const service of all) {
          const ttlS = Math.floor(serviceTtlMs(this.#all.policy.serviceTtlMs, service) / 1000);
          for (const endpoint of this.#all.services.resolve({ service }, asking).endpoints) {
            if (!meant(endpoint.resident)) continue;
            const name = [instanceLabel(endpoint.resident), ...this.#typeName(of, asked)];
            if (browsed.what === "instance") this.#describe(asking, asked, endpoint, ttlS, made);
            else if (pointers && nameBytes(name) <= MAX_NAME_BYTES) {
              made.answers.push(record(owner, ttlS, { kind: "PTR", target: name }));
              const told = reply();
              this.#describe({ ...asking, owner: name, type: TYPE.ANY }, asked, endpoint, ttlS, told);
              made.additionals.push(...told.answers, ...told.additionals);
            }
          }
        }
      }
    }
    return made.answers.length > 0 ? made : this.#all.zone.no(asking, RCODE.NOERROR);
  }

  /** Nothing to browse; the name may exist all the same, for SRV [RFC 2782]. */
  #unbrowsed(asking: Asking, asked: InZone): Reply {
    const wanted = asked.parts.length === 2 ? serviceOf(asked.parts) : undefined;
    return this.#all.zone.empty(
      asking,
      () => wanted !== undefined && this.#all.services.serviceExists(asking.view, wanted, asked.parts),
    );
  }

  /** True where a name of two labels exists because it can be browsed, or names to browse lie below. */
  isBrowsable(view: View, { parts, short }: InZone): boolean {
    const browsed = short ? readBrowsed(parts) : undefined;
    if (browsed?.what !== "instances") return browsed !== undefined;
    return this.#all.sdIndex(view).types.has(`${browsed.of.type} ${browsed.of.transport}`);
  }

  /** Port and labels of one instance at the name asked for; its address goes along. */
  #describe(asking: Asking, asked: InZone, endpoint: Endpoint, ttlS: number, made: Reply): void {
    const { type, owner } = asking;
    const { datacenter } = this.#all.parts.self;
    const spot = spotOf(endpoint, owner, datacenter, asked.spelled);
    if (spot !== undefined && (type === TYPE.SRV || type === TYPE.ANY))
      this.#all.endpoints.addSrv(asking, [spot], ttlS, datacenter, asked.spelled, made);
    if (type === TYPE.TXT || type === TYPE.ANY) {
      const { labels, tags } = endpoint.resident.instance;
      const strings = txtOf(labels, tags).map((text) => Uint8Array.from(Buffer.from(text, "utf8")));
      made.answers.push(record(owner, ttlS, { kind: "TXT", strings }));
    }
  }

  #typeName({ type, transport }: SdType, { spelled }: InZone): Name {
    return [labelFromText(`_${type}`), `_${transport}`, ...spelled];
  }
}
