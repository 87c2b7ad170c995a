// From a registry URI to its backend.
import type { Backend, BackendGround } from "./backend.ts";
import { consulBackend } from "./consul.ts";
import { consulKvBackend } from "./consulkv.ts";
import { etcdBackend, skydns2Backend } from "./etcd.ts";
import type { RegistryUri } from "./uri.ts";
import { zookeeperBackend } from "./zookeeper.ts";

/** By scheme. Names and spellings: Registrator 7.4.0's factories; consulkv-tls is an addition. */
const FACTORIES: ReadonlyMap<string, (uri: RegistryUri, ground: BackendGround) => Backend> = new Map([
  ["consul", consulBackend],
  ["consul-unix", consulBackend],
  ["consul-tls", consulBackend],
  ["consulkv", consulKvBackend],
  ["consulkv-unix", consulKvBackend],
  ["consulkv-tls", consulKvBackend],
  ["etcd", etcdBackend],
  ["skydns2", skydns2Backend],
  ["zookeeper", zookeeperBackend],
]);

/** True for the schemes that there are. */
export function hasBackend(scheme: string): boolean {
  return FACTORIES.has(scheme);
}

/** The backend of a URI, connected to nothing yet; undefined for a scheme that there is not. @throws InputError for URIs that lack something */
export function openBackend(uri: RegistryUri, ground: BackendGround): Backend | undefined {
  return FACTORIES.get(uri.scheme)?.(uri, ground);
}
