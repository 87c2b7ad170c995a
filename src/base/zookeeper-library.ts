// What node-zookeeper-client has and how it says things, as far as it is used: it has no types of its own.
import type { Code } from "./error.ts";

/** A znode's facts. */
export interface RawStat {
  readonly ephemeralOwner: Buffer;
  readonly version: number;
}
/** What a call is answered with where it fails; `code` is one of ZooKeeper's KeeperException codes. */
export type Fault = { readonly code?: number; readonly message: string } | null | undefined;
/** Of the library's own making; undefined = everything is everybody's. */
export type Acls = readonly unknown[] | undefined;
interface RawTransaction {
  remove(path: string): RawTransaction;
  create(path: string, data: Buffer, acls: Acls, mode: number): RawTransaction;
  commit(done: (error: Fault) => void): void;
}
/** A client as the library makes it. */
export interface RawClient {
  on(event: "connected" | "disconnected" | "expired" | "authenticationFailed", listener: () => void): void;
  connect(): void;
  close(): void;
  getSessionId(): Buffer;
  getSessionTimeout(): number;
  addAuthInfo(scheme: string, auth: Buffer): void;
  create(path: string, data: Buffer, acls: Acls, mode: number, done: (error: Fault, path?: string) => void): void;
  exists(path: string, watcher: (() => void) | undefined, done: (error: Fault, stat?: RawStat) => void): void;
  getData(
    path: string,
    watcher: (() => void) | undefined,
    done: (error: Fault, data?: Buffer, stat?: RawStat) => void,
  ): void;
  getChildren(path: string, watcher: (() => void) | undefined, done: (error: Fault, names?: string[]) => void): void;
  setData(path: string, data: Buffer, version: number, done: (error: Fault) => void): void;
  remove(path: string, version: number, done: (error: Fault) => void): void;
  transaction(): RawTransaction;
  /** Not part of the library's promises: it has no way of its own to notice a silent server, or to leave without ending the session. */
  readonly connectionManager: {
    state: number;
    socket?: {
      destroy(): void;
      once(event: "error", listener: (error: Error) => void): void;
      once(event: "close", listener: (hadError: boolean) => void): void;
      readonly remoteAddress?: string;
      readonly remotePort?: number;
    };
    connectTimeoutHandler?: NodeJS.Timeout | null;
    findNextServer(callback: (server: unknown) => void): void;
  };
}

interface Library {
  readonly default: {
    createClient(servers: string, options: object): RawClient;
    readonly ACL: { readonly CREATOR_ALL_ACL: readonly unknown[]; readonly READ_ACL_UNSAFE: readonly unknown[] };
  };
}

/** ZooKeeper's create modes. */
export const MODE = { persistent: 0, ephemeral: 1, numbered: 3 } as const;
/** The library's state of a connection that is not to be made again. */
export const CLOSING = -1;
export const NO_NODE = -101;
/** What ZooKeeper's codes mean here. */
export const FAULTS: Readonly<Record<number, readonly [Code, string]>> = {
  [-4]: ["unavailable", "the connection was lost"],
  [NO_NODE]: ["not-found", "node does not exist"],
  [-102]: ["not-allowed", "its access list forbids it"],
  [-110]: ["conflict", "node already exists"],
  [-111]: ["conflict", "node is not empty"],
  [-112]: ["unavailable", "the session is over"],
  [-115]: ["not-allowed", "the server refused the credentials"],
};

/** Loads the library. */
export async function loadLibrary(): Promise<Library["default"]> {
  // @ts-expect-error The library has no types of its own; RawClient says what is used of it.
  const library: Library = await import("node-zookeeper-client");
  return library.default;
}
