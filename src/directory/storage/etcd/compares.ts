// Conditions of an etcd transaction.
import { type Compare, Target } from "../../../base/etcd/proto.ts";

/** There is no such key. */
export const absent = (key: Uint8Array): Compare => ({ target: Target.version, key, version: 0 });

/** The key was last written at this revision; 0 = it is not there. */
export const standsAt = ({ key, at }: { readonly key: Uint8Array; readonly at: number }): Compare =>
  at === 0 ? absent(key) : { target: Target.mod, key, modRevision: at };
