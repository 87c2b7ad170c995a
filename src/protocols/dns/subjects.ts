// The subjects that names can be about, joined: each knows its own names and asks the others.
import { Limits } from "../../base/limits.ts";
import type { View } from "../../contracts/directory.ts";
import type { AnswerParts } from "./asking.ts";
import { createSdIndex, type SdIndex } from "./browse.ts";
import { Browsing } from "./browsing.ts";
import type { Policy } from "./config.ts";
import { Endpoints } from "./endpoints.ts";
import { createExistence, type Existence } from "./existence.ts";
import type { Zones } from "./names.ts";
import { Nodes } from "./nodes.ts";
import { Outside } from "./outside.ts";
import type { Learned } from "./packed.ts";
import { Queries } from "./queries.ts";
import { Services } from "./services.ts";
import { Zone } from "./zone.ts";

/** All subjects that names can be about, and what they share. */
export class Subjects {
  readonly parts: AnswerParts;
  readonly policy: Policy;
  readonly zones: Zones;
  readonly existence: (view: View) => Existence = createExistence();
  readonly sdIndex: (view: View) => SdIndex = createSdIndex();
  readonly limits: Limits;
  /** Takes in what a question was understood as, so that it is answered the short way from now on. */
  readonly learn: (learned: Learned) => void;
  readonly zone: Zone = new Zone(this);
  readonly services: Services = new Services(this);
  readonly endpoints: Endpoints = new Endpoints(this);
  readonly queries: Queries = new Queries(this);
  readonly browsing: Browsing = new Browsing(this);
  readonly nodes: Nodes = new Nodes(this);
  readonly outside: Outside = new Outside(this);

  constructor(parts: AnswerParts, learn: (learned: Learned) => void) {
    const { policy } = parts;
    this.parts = parts;
    this.policy = policy;
    this.zones = { primary: policy.domain, alternative: policy.altDomain };
    this.limits = new Limits(parts.clock);
    this.learn = learn;
  }
}
