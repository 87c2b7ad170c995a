// A user event: a word with a payload that somebody sends to all hosts, or to those that its filters name.

/** The kind under which the directory keeps events: for those who hear them now, no part of its content. */
export const EVENT_KIND = "event";

/** What is asked for when an event is fired. Filters are patterns in RE2's syntax; "" = no filter. */
export interface EventCall {
  readonly name: string;
  readonly payload: Uint8Array;
  /** Only nodes whose name it matches. */
  readonly nodeFilter: string;
  /** Only nodes with an instance whose ID or name it matches. */
  readonly serviceFilter: string;
  /** Of these instances only those with a tag that it matches. */
  readonly tagFilter: string;
}

/** An event that was fired. */
export interface UserEvent extends EventCall {
  /** UUID. */
  readonly id: string;
  /** Its place among all events, a Lamport time: greater than that of every event its sender knew of. */
  readonly time: number;
}
