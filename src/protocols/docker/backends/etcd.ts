// etcd:// and skydns2://: services as keys of etcd.
import { InputError } from "../../../base/error.ts";
import type { Backend, BackendGround, Entry } from "./backend.ts";
import { etcdKeys } from "./etcd-keys.ts";
import { keyValue, readEach, standingKeys } from "./keys.ts";
import type { RegistryUri } from "./uri.ts";

/** Where services stand below a prefix that ends with "/", and what of them. */
function layout(uri: RegistryUri, prefix: string, value: (entry: Entry) => string, ground: BackendGround): Backend {
  const keys = etcdKeys(uri.host, ground);
  const place = ({ name, id }: Entry): string => `${prefix}${name}/${id}`;
  return {
    scheme: uri.scheme,
    place,
    content: value,
    ping: (signal) => keys.ping(signal),
    read: (places, signal) => readEach(places, (key) => keys.get(key, signal)),
    list: async (signal) => standingKeys(await keys.list(prefix, signal), prefix),
    write: (entry, signal) => keys.put(place(entry), value(entry), signal),
    async refresh(entry, signal) {
      if (ground.ttlSeconds > 0) await keys.refresh(place(entry), value(entry), signal);
    },
    remove: (key, signal) => keys.remove(key, signal),
    close() {},
  };
}

/** The backend for etcd://: `<path>/<name>/<id>` = `ip:port`. */
export function etcdBackend(uri: RegistryUri, ground: BackendGround): Backend {
  const path = uri.path.replace(/^\/+|\/+$/g, "");
  return layout(uri, path === "" ? "/" : `/${path}/`, keyValue, ground);
}

/** The backend for skydns2://: `/skydns/<reversed domain>/<name>/<id>` = {"host", "port"}. @throws InputError where the domain is missing */
export function skydns2Backend(uri: RegistryUri, ground: BackendGround): Backend {
  const domain = uri.path.replace(/^\/+/, "");
  if (domain === "") throw new InputError("skydns2", "dns domain required e.g.: skydns2://<host>/<domain>");
  const value = ({ ip, port }: Entry): string => JSON.stringify({ host: ip, port });
  return layout(uri, `/skydns/${domain.split(".").reverse().join("/")}/`, value, ground);
}
