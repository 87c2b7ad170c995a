// Keys, sessions and locks among agents without a server: there is nobody to keep them, so each question is refused with the way to get them.
import { TrilithError } from "../base/error.ts";
import type { Kv } from "../contracts/kv.ts";
import type { RunningSessions } from "./session.ts";

/** What is said to whoever wants one. */
const NONE_AMONG_PEERS =
  "there are no keys, sessions and locks among agents without a server (--peers): each host is the authority for itself only; to have them, join an agent that keeps them (--join http://host:8500) or share etcd (--etcd)";

const refuse = (): never => {
  throw new TrilithError("unsupported", NONE_AMONG_PEERS);
};

/** Both contracts; nothing is kept, so that asking for it is an error rather than an answer that holds on one host only. */
export function refusedAmongPeers(own: RunningSessions): {
  readonly kv: Kv;
  readonly sessions: RunningSessions;
} {
  const refuseLater = async (): Promise<never> => refuse();
  return {
    kv: {
      get: refuse,
      read: refuseLater,
      set: refuseLater,
      delete: refuseLater,
      deleteTree: refuseLater,
      planSet: refuse,
      planDelete: refuse,
    },
    sessions: {
      create: refuseLater,
      destroy: refuseLater,
      renew: refuseLater,
      living: refuse,
      list: refuse,
      settled: refuseLater,
      start: () => own.start(),
      stop: () => own.stop(),
    },
  };
}
