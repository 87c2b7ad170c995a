// Names that are not ours: who may have them resolved, and what recursors say.
import {
  CLASS,
  type DnsRecord,
  endsWith,
  ipBytes,
  lowerLabel,
  type Message,
  type Name,
  RCODE,
  TYPE,
} from "../../wire/dns/index.ts";
import { type Asking, type From, type Reply, refused, reply } from "./asking.ts";
import { readName } from "./names.ts";
import { addressRecord, wantsAddress } from "./records.ts";
import type { Subjects } from "./subjects.ts";

const LOCALHOST_TTL_S = 86_400;

/** Answers for names of others. */
export class Outside {
  readonly #all: Subjects;

  constructor(all: Subjects) {
    this.#all = all;
  }

  /** True where recursion is available to the asker. */
  recursesFor({ address }: From): boolean {
    return this.#all.parts.recursion?.access.allows(address) === true;
  }

  /** True where a name means something to others: not what is ours, and not what is some host's or network's own matter. */
  #mayForward(name: Name): boolean {
    const { neverForward, forwardSingleLabels } = this.#all.policy;
    if (name.length === 1 && !forwardSingleLabels) return false;
    if (readName(name, this.#all.zones).where === "zone") return false;
    return !neverForward.some((domain) => endsWith(name, domain));
  }

  /** What recursors say, for those who may ask for it. */
  recurse(asking: Asking, message: Message): Reply {
    const { compat } = this.#all.policy;
    const { recursion } = this.#all.parts;
    const { question, type, from, errands } = asking;
    const wanted = compat || message.recursionDesired;
    if (recursion === undefined || errands === undefined || !wanted || !recursion.access.allows(from.address))
      return refused();
    if (type === TYPE.AXFR || type === TYPE.IXFR) return { ...refused(), rcode: RCODE.NOTIMP };
    const { name } = question;
    if (!compat && name.length > 0 && lowerLabel(name[name.length - 1] as string) === "localhost") {
      const found = ["127.0.0.1", "::1"].flatMap((text) => ipBytes(text) ?? []).filter((ip) => wantsAddress(type, ip));
      return { ...reply(found.map((ip) => addressRecord(question.name, LOCALHOST_TTL_S, ip))), recursed: true };
    }
    if (!this.#mayForward(name)) return { ...reply(), rcode: RCODE.NXDOMAIN, recursed: true };
    const { checkingDisabled, edns } = message;
    const flags = { checkingDisabled, dnssecOk: edns?.dnssecOk === true };
    const fetched = errands.get("recurse", () => recursion.recursors.ask(question, flags))?.value;
    if (fetched === undefined) return refused();
    const { rcode, answers, authorities, additionals } = fetched;
    return {
      rcode,
      answers: [...answers],
      authorities: [...authorities],
      additionals: [...additionals],
      recursed: true,
    };
  }

  /** What recursors say about a name that an address of ours consists of. */
  outside(asking: Asking, target: Name): readonly DnsRecord[] {
    const { compat } = this.#all.policy;
    const { recursion } = this.#all.parts;
    const { errands, type } = asking;
    if (recursion === undefined || errands === undefined || !this.#mayForward(target)) return [];
    const types = compat ? [TYPE.A] : type === TYPE.A || type === TYPE.AAAA ? [type] : [TYPE.A, TYPE.AAAA];
    return types.flatMap((one) => {
      const question = { name: target, type: one, class: CLASS.IN };
      const flags = { checkingDisabled: false, dnssecOk: false };
      // Without an answer the alias is told all the same: the asker may know whom to ask.
      const fetched = errands.get(`follow ${target.map(lowerLabel).join(".")} ${one}`, () =>
        recursion.recursors.ask(question, flags).then(
          ({ answers }) => answers,
          () => [],
        ),
      );
      return fetched?.value ?? [];
    });
  }
}
