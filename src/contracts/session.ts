// Sessions: who holds locks, and until when; as promised to every dialect that has them (the rules live in directory/session.ts).
import { TrilithError } from "../base/error.ts";
import type { Entry, Session } from "../model/record.ts";
import type { View } from "./directory.ts";

/** A session to be made. Its ID is chosen for it. */
export type SessionRequest = Omit<Session, "id" | "ended">;

/** Why a session cannot be, or cannot be any longer. */
export type SessionFault =
  | { readonly kind: "node-missing"; readonly node: string }
  | { readonly kind: "check-missing"; readonly check: string }
  | { readonly kind: "check-critical"; readonly check: string };

/** A session that may not be made, and what is in its way. */
export class SessionRefused extends TrilithError {
  readonly fault: SessionFault;
  constructor(fault: SessionFault) {
    super("invalid", `no session can be made: ${textOf(fault)}`);
    this.name = "SessionRefused";
    this.fault = fault;
  }
}

/** A fault in words, for logs and errors. */
export function textOf(fault: SessionFault): string {
  switch (fault.kind) {
    case "node-missing":
      return `node "${fault.node}" is not registered`;
    case "check-missing":
      return `check "${fault.check}" is not registered`;
    case "check-critical":
      return `check "${fault.check}" is critical`;
  }
}

/**
 * The sessions of the directory. A session ends by `destroy`, when its node goes, when one of its checks goes or turns critical, and when it
 * is not renewed for twice its time to live. With it end its locks: in one commit its keys are released or deleted, and cannot be locked
 * again for its lock delay. Whichever process notices writes it.
 */
export interface Sessions {
  /** Makes a session and returns its ID. Its time to live starts now. @throws SessionRefused; TrilithError as `Directory.write` */
  create(request: SessionRequest): Promise<string>;
  /** Ends a session and its locks. What is not there counts as ended. */
  destroy(id: string): Promise<void>;
  /** Starts a session's time to live anew and returns it; undefined if it has ended. Wakes nobody. */
  renew(id: string): Promise<Entry<"session"> | undefined>;
  /** A session that may acquire locks; undefined once something has ended it, also where its locks are yet to be released. */
  living(view: View, id: string): Entry<"session"> | undefined;
  /** All sessions, or those of one node, in the order of their IDs; without those that are being wound up. */
  list(view: View, node?: string): readonly Entry<"session">[];
  /**
   * Resolves when what this process sees to have ended sessions (a check that turned critical) has released their locks in its view, or
   * after a moment if the store does not answer. At once if there is nothing to do.
   */
  settled(signal?: AbortSignal): Promise<void>;
}
