// etcd's errors, sorted by what they mean for a retry.
import { type Code, TrilithError } from "../error.ts";

/** What a failed call leaves open: `no` = it was not done for sure, `maybe` = it may have been done or be done later. */
export type Done = "no" | "maybe";

/** A failed call to one member. */
export class EtcdError extends TrilithError {
  readonly done: Done;
  /** True where another attempt, perhaps at another member, may succeed. */
  readonly temporary: boolean;
  /** True where no connection came about. */
  readonly refused: boolean;
  /** The gRPC status code; -1 where there was none in time. */
  readonly status: number;
  /** What etcd said. */
  readonly details: string;

  constructor(
    code: Code,
    message: string,
    facts: {
      readonly done: Done;
      readonly temporary: boolean;
      readonly refused?: boolean;
      readonly status: number;
      readonly details: string;
    },
    cause?: unknown,
  ) {
    super(code, message, cause);
    this.done = facts.done;
    this.temporary = facts.temporary;
    this.refused = facts.refused ?? false;
    this.status = facts.status;
    this.details = facts.details;
  }
}

// gRPC status codes [grpc/doc/statuscodes.md].
const CANCELLED = 1;
const INVALID_ARGUMENT = 3;
const DEADLINE_EXCEEDED = 4;
const NOT_FOUND = 5;
const PERMISSION_DENIED = 7;
const RESOURCE_EXHAUSTED = 8;
const FAILED_PRECONDITION = 9;
const OUT_OF_RANGE = 11;
export const UNAVAILABLE = 14;
export const UNAUTHENTICATED = 16;

/** gRPC's details without what it says around them. */
function plain(details: string): string {
  const [, last = ""] = /Last error: (?:Error: )?(.+?)\.? ?(?:Resolution note: ?)?$/.exec(details) ?? [];
  return last === "" || last === "null" ? details : last;
}

/** Sorts a gRPC error; `doing` names the request and the member. */
export function sortError(error: { readonly code: number; readonly details: string }, doing: string): EtcdError {
  const { code: status, details } = error;
  const make = (
    code: Code,
    done: Done,
    temporary: boolean,
    text: string = plain(details),
    refused = false,
  ): EtcdError => new EtcdError(code, `${doing}: ${text}`, { done, temporary, refused, status, details }, error);
  switch (status) {
    case UNAVAILABLE:
      // Refused before anything was looked at, because every call asks for a leader.
      if (details.includes("etcdserver: no leader")) return make("unavailable", "no", true);
      if (
        /No connection established|ECONNREFUSED|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|Name resolution failed/.test(details)
      )
        return make("unavailable", "no", true, plain(details), true);
      return make("unavailable", "maybe", true);
    case CANCELLED:
    case DEADLINE_EXCEEDED:
      return make("unavailable", "maybe", true);
    case RESOURCE_EXHAUSTED:
      if (details.includes("space exceeded"))
        return make(
          "disk-full",
          "no",
          false,
          `etcd is out of space and takes no writes (${details}); compact and defragment it, then clear the alarm with "etcdctl alarm disarm"`,
        );
      if (/larger than max|too large/.test(details)) return make("too-large", "no", false);
      return make("unavailable", "no", true);
    case INVALID_ARGUMENT:
      if (/too large|too many operations/.test(details)) return make("too-large", "no", false);
      if (details.includes("revision in header is old")) return make("unavailable", "no", true);
      if (/authentication failed|user name is empty|not enabled/.test(details)) return make("not-allowed", "no", false);
      return make("invalid", "no", false);
    case UNAUTHENTICATED:
      return make("not-allowed", "no", true);
    case PERMISSION_DENIED:
      return make("not-allowed", "no", false);
    case NOT_FOUND:
      return make("not-found", "no", false);
    case FAILED_PRECONDITION:
      if (details.includes("authentication is not enabled"))
        return make(
          "not-allowed",
          "no",
          false,
          `${details}, but a user name is set; remove it or run "etcdctl auth enable"`,
        );
      return make("conflict", "no", false);
    case OUT_OF_RANGE:
      return make("damaged", "no", false);
    default:
      return make("internal", "maybe", true);
  }
}

/** True where the revision asked for is compacted away. */
export function isCompacted(error: unknown): boolean {
  return error instanceof EtcdError && error.status === OUT_OF_RANGE && error.details.includes("compacted");
}

/** True where etcd does not know the lease of a put. */
export function isLeaseGone(error: unknown): boolean {
  return error instanceof EtcdError && error.status === NOT_FOUND && error.details.includes("lease not found");
}

/** True where a lease of that ID exists already: an earlier attempt came through. */
export function isLeaseThere(error: unknown): boolean {
  return (
    error instanceof EtcdError && error.status === FAILED_PRECONDITION && error.details.includes("lease already exists")
  );
}
