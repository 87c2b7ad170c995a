// A ZooKeeper in memory under a test's control: znodes, numbers, watches that ring once, sessions that end, calls that fail.
import { TrilithError } from "../../src/base/error.ts";
import type { openZooKeeper, ZooKeeper, ZooKeeperOptions } from "../../src/base/zookeeper.ts";

interface Node {
  data: Buffer;
  owner: string;
  version: number;
  made: number;
}

/** The server and the one client of it. */
export interface FakeZooKeeper {
  readonly open: typeof openZooKeeper;
  /** Another client's doing. `owner`: its session, "" = it stays. */
  put(path: string, data: string, owner?: string): void;
  remove(path: string): void;
  data(path: string): string | undefined;
  owner(path: string): string | undefined;
  names(path: string): readonly string[];
  /** Called before each call of the client; throws what it shall fail with, or returns "after" to fail it when it is done. */
  fault: (what: string, path: string) => TrilithError | { readonly after: TrilithError } | undefined;
  /** What was asked, as "get /path". */
  readonly asked: string[];
  /** The connection goes, the session stays. */
  cut(): void;
  back(): void;
  /** The session is over: its znodes go, and another one begins. */
  expire(): void;
  readonly closed: () => "no" | "closed" | "abandoned";
}

/** A server with a root and nothing below it. */
export function fakeZooKeeper(): FakeZooKeeper {
  const nodes = new Map<string, Node>([["/", { data: Buffer.alloc(0), owner: "", version: 0, made: 0 }]]);
  const dataWatches = new Map<string, Set<() => void>>();
  const childWatches = new Map<string, Set<() => void>>();
  const asked: string[] = [];
  let session = 0;
  let connected = true;
  let options: ZooKeeperOptions | undefined;
  let closed: "no" | "closed" | "abandoned" = "no";
  const id = (): string => String(session).padStart(16, "0");
  const parentOf = (path: string): string => path.slice(0, path.lastIndexOf("/")) || "/";
  const ring = (watches: Map<string, Set<() => void>>, path: string): void => {
    const rung = [...(watches.get(path) ?? [])];
    watches.delete(path);
    for (const each of rung) each();
  };
  const watch = (watches: Map<string, Set<() => void>>, path: string, changed: (() => void) | undefined): void => {
    if (changed !== undefined) watches.set(path, (watches.get(path) ?? new Set()).add(changed));
  };
  const make = (path: string, data: Uint8Array | string, owner: string): void => {
    if (nodes.has(path)) throw new TrilithError("conflict", `${path}: node already exists`);
    const parent = nodes.get(parentOf(path));
    if (parent === undefined) throw new TrilithError("not-found", `${path}: node does not exist`);
    parent.made++;
    nodes.set(path, { data: Buffer.from(data as string), owner, version: 0, made: 0 });
    ring(dataWatches, path);
    ring(childWatches, path);
    ring(childWatches, parentOf(path));
  };
  const drop = (path: string): boolean => {
    if (!nodes.delete(path)) return false;
    ring(dataWatches, path);
    ring(childWatches, path);
    ring(childWatches, parentOf(path));
    return true;
  };
  const below = (path: string): string[] =>
    [...nodes.keys()]
      .filter((each) => each !== "/" && parentOf(each) === path)
      .map((each) => each.slice(each.lastIndexOf("/") + 1));
  const self: FakeZooKeeper = {
    fault: () => undefined,
    asked,
    put(path, data, owner = "") {
      for (let at = path.indexOf("/", 1); at !== -1; at = path.indexOf("/", at + 1))
        if (!nodes.has(path.slice(0, at))) make(path.slice(0, at), "", "");
      const node = nodes.get(path);
      if (node === undefined) return make(path, data, owner);
      node.data = Buffer.from(data);
      node.version++;
      ring(dataWatches, path);
    },
    remove(path) {
      for (const name of below(path)) self.remove(`${path}/${name}`);
      drop(path);
    },
    data: (path) => nodes.get(path)?.data.toString(),
    owner: (path) => nodes.get(path)?.owner,
    names: (path) => below(path).sort(),
    cut() {
      connected = false;
      options?.onNews?.({ what: "away", text: "the connection was lost" });
    },
    back() {
      connected = true;
      options?.onNews?.({ what: "back", id: id(), timeoutMs: 10_000, server: "fake:2181" });
    },
    expire() {
      const old = id();
      session++;
      connected = true;
      for (const [path, { owner }] of [...nodes]) if (owner === old) drop(path);
      options?.onNews?.({ what: "session", id: id(), timeoutMs: 10_000, server: "fake:2181" });
      for (const watches of [dataWatches, childWatches]) for (const path of [...watches.keys()]) ring(watches, path);
    },
    closed: () => closed,
    async open(given) {
      options = given;
      session++;
      queueMicrotask(() => given.onNews?.({ what: "session", id: id(), timeoutMs: 10_000, server: "fake:2181" }));
      const call = async <T>(what: string, path: string, work: () => T): Promise<T> => {
        await Promise.resolve();
        if (closed !== "no") throw new TrilithError("stopped", "the client was closed");
        if (!connected) throw new TrilithError("unavailable", "no connection");
        asked.push(`${what} ${path}`);
        const fault = self.fault(what, path);
        if (fault instanceof TrilithError) throw fault;
        const done = work();
        if (fault !== undefined) throw fault.after;
        return done;
      };
      const client: ZooKeeper = {
        session: () => (connected && closed === "no" ? id() : ""),
        get: (path, changed) =>
          call("get", path, () => {
            watch(dataWatches, path, changed);
            const node = nodes.get(path);
            return node && { data: node.data, stat: { owner: node.owner, version: node.version } };
          }),
        children: (path, changed) =>
          call("children", path, () => {
            watch(childWatches, path, changed);
            return nodes.has(path) ? below(path) : undefined;
          }),
        create: (path, data, kind) => call("create", path, () => make(path, data, kind === "ephemeral" ? id() : "")),
        createNumbered: (prefix, data) =>
          call("create", prefix, () => {
            const parent = nodes.get(parentOf(prefix));
            if (parent === undefined) throw new TrilithError("not-found", `${prefix}: node does not exist`);
            const path = prefix + String(parent.made).padStart(10, "0");
            make(path, data, id());
            return path;
          }),
        makePath: (path) => call("makePath", path, () => self.put(path, "")),
        set: (path, data) =>
          call("set", path, () => {
            if (!nodes.has(path)) throw new TrilithError("not-found", `${path}: node does not exist`);
            self.put(path, String(data));
          }),
        takeOver: (path, data) =>
          call("takeOver", path, () => {
            if (!drop(path)) throw new TrilithError("not-found", `${path}: node does not exist`);
            make(path, data, id());
          }),
        remove: (path) => call("remove", path, () => drop(path)),
        async close() {
          if (closed !== "no") return;
          closed = "closed";
          for (const [path, { owner }] of [...nodes]) if (owner === id()) drop(path);
        },
        abandon() {
          if (closed === "no") closed = "abandoned";
        },
      };
      closed = "no";
      return client;
    },
  };
  return self;
}
