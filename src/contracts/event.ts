// User events: fired on one host, seen by all that share the directory (the rules live in directory/event.ts).
import type { EventCall, UserEvent } from "../model/event.ts";
import type { Scope } from "../model/record.ts";

/** The events of the directory, as far as they concern this host. */
export interface Events {
  /**
   * Resolves when the event is written; it is then in `list()` where it concerns this host.
   * @throws TrilithError `invalid` (a filter that is no pattern, a tag filter without a service filter), `too-large`, and as `Directory.write`
   */
  fire(event: EventCall): Promise<UserEvent>;
  /**
   * The last events (at most 256) that came since this agent started and concerned this host when they came, oldest first. Never blocks.
   */
  list(): readonly UserEvent[];
  /** Moves with every event, also with those that do not concern this host. */
  readonly scope: Scope;
}
