// What `trilith event` and `trilith exec` have in common: a user event at the agent, for all hosts or some.
import type { Command as Commander } from "commander";
import { InputError } from "../base/error.ts";
import { type Client, withQuery } from "./client.ts";

/** Regular expressions that hosts are chosen by. */
export interface Audience {
  readonly node?: string;
  readonly service?: string;
  /** Only beside `service`. */
  readonly tag?: string;
}

/** An event as the agent tells it back. */
export interface Fired {
  readonly ID: string;
}

/** Adds the flags by which hosts are chosen. */
export function audienceFlags(command: Commander): Commander {
  return command
    .option("--node <pattern>", "only hosts whose name matches")
    .option("--service <pattern>", "only hosts with a service whose name matches")
    .option("--tag <pattern>", "of these services, only those with a tag that matches");
}

/** @throws InputError in Consul's words for a tag without a service */
export function checkAudience({ service, tag }: Audience): void {
  if (tag !== undefined && service === undefined)
    throw new InputError("--tag", "Cannot provide tag filter without service filter.");
}

/** Fires an event. @throws TrilithError of the agent */
export async function fire(client: Client, name: string, audience: Audience, payload?: string): Promise<Fired> {
  const query = new URLSearchParams();
  for (const filter of ["node", "service", "tag"] as const) {
    const pattern = audience[filter];
    if (pattern !== undefined) query.set(filter, pattern);
  }
  const path = withQuery(`/v1/event/fire/${encodeURIComponent(name)}`, query);
  return JSON.parse(await client.send("PUT", path, payload === undefined ? {} : { body: payload })) as Fired;
}
