// Who comes in: a source states its complete list, again and again; the differ finds what changed.

import type { Registration } from "../model/instance.ts";
import type { Override } from "../model/override.ts";
import type { Authority, Reason } from "../model/reason.ts";

/**
 * The complete list of a source at one moment.
 *
 * What is not this host's own (a printer, a ZooKeeper member, a peer on the tailnet) carries `external`: it is then held on that external node
 * (for Consul's clients an ordinary node without serfHealth, labelled external-node=true), never on this host. Several agents that list the
 * same are its witnesses and hold it together, so node name, id and `foreignId` are to be made from the thing itself, the same everywhere.
 * It goes when its last witness no longer lists it; a witness that dies is counted until its node is reaped. Only the reason "goodbye" in
 * `gone` (the thing said so itself) takes it away at once, whoever else still lists it; it comes back when a source lists it anew. Who changes
 * its own statement writes it; where witnesses differ for long, the one with the lowest node name wins; that one also asks its checks.
 * Its checks may be of every kind that is asked, or "none", which stands as its `initial` says (the source knows the health itself).
 */
export interface SourceList {
  readonly list: readonly Registration[];
  readonly authority: Authority;
  /** Reasons the source knows for what is missing from the list, by `goneKeyOf` (the registration's id). */
  readonly gone?: ReadonlyMap<string, Reason>;
  /** Registrations that could not be (fully) taken over, for `why` and `doctor`: what, and the reason. */
  readonly complaints?: readonly { readonly about: string; readonly text: string }[];
  /** What the source says about services of any source in place of what that one says (a file's `overrides`). */
  readonly overrides?: readonly Override[];
}

/** One of several things that a source reads, each well or not by itself: a name, a file, a path, a server. */
export interface SourceEntry {
  /** For people; unique in its source, and the same over restarts: "web (_http._tcp.example.com)". */
  readonly name: string;
  readonly ok: boolean;
  /** Why what it told may no longer be so; "" where it is well. */
  readonly text: string;
  /** What of the source's last list it told, by `goneKeyOf`. */
  tells(): Iterable<string>;
}

/** How a source is. */
export interface SourceHealth {
  readonly ok: boolean;
  /** One line for people: what was found, or why nothing: "Docker 20.10 at unix:///var/run/docker.sock, 3 containers". */
  readonly text: string;
  /** Set while it has not begun yet: what it told in an earlier life is neither well nor away by what is said here. */
  readonly begun?: false;
  /**
   * Where it reads several things: how each of them is. Of a source that is not well only what the entries that are not well told is the last
   * known good; all of it where there are no such entries.
   */
  readonly entries?: readonly SourceEntry[];
}

/**
 * Something that brings registrations in. Level-triggered: an event, a reconnect or a timer only rings a bell; the list is then read again.
 * `watch` yields the whole list at once and after every change, never ends by itself, and throws only for what no retry can mend.
 * While what it reads is away it yields nothing (the last list stays) and reports through `state`.
 */
export interface Source {
  readonly name: string;
  /** See above; begins when it is iterated, ends when aborted. */
  watch(signal: AbortSignal): AsyncIterable<SourceList>;
  /** How it is now. */
  state(): SourceHealth;
}
