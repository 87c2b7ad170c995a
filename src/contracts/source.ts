// Who comes in: a source states its complete list, again and again; the differ finds what changed.

import type { Registration } from "../model/instance.ts";
import type { Authority, Reason } from "../model/reason.ts";

/** The complete list of a source at one moment. */
export interface SourceList {
  readonly list: readonly Registration[];
  readonly authority: Authority;
  /** Reasons the source knows for what is missing from the list, by registration id. */
  readonly gone?: ReadonlyMap<string, Reason>;
  /** Registrations that could not be (fully) taken over, for `why` and `doctor`: what, and the reason. */
  readonly complaints?: readonly { readonly about: string; readonly text: string }[];
}

/**
 * Something that brings registrations in. Level-triggered: an event, a reconnect or a timer only rings a bell; the list is then read again.
 * `watch` yields the whole list at once and after every change, never ends by itself, and throws only for what no retry can mend.
 * While what it reads is away it yields nothing (the last list stays) and reports through `state`.
 */
export interface Source {
  readonly name: string;
  watch(signal: AbortSignal): AsyncIterable<SourceList>;
  /** One line for people: what was found, or why nothing: "Docker 20.10 at unix:///var/run/docker.sock, 3 containers". */
  state(): { readonly ok: boolean; readonly text: string };
}
