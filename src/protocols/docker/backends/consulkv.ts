// consulkv://: services as keys of Consul's key-value store.
import type { Backend, BackendGround } from "./backend.ts";
import { consulApi, segment } from "./consul-api.ts";
import { unexpected } from "./http.ts";
import { keyValue, readEach, standingKeys } from "./keys.ts";
import type { RegistryUri } from "./uri.ts";

/** The backend for consulkv:// (and consulkv-unix://socket:/prefix, consulkv-tls://): `<prefix>/<name>/<id>` = `ip:port`. */
export function consulKvBackend(uri: RegistryUri, ground: BackendGround): Backend {
  // Behind the path of a socket the prefix stands after a colon. (Registrator fails for want of one; here the keys then stand at the top.)
  const colon = uri.scheme.endsWith("-unix") ? uri.path.indexOf(":") : -1;
  const [socket, path] = colon < 0 ? [uri.path, ""] : [uri.path.slice(0, colon), uri.path.slice(colon + 1)];
  const api = consulApi({ ...uri, path: socket }, ground);
  const prefix = (uri.scheme.endsWith("-unix") ? path : uri.path).replace(/^\/+|\/+$/g, "");
  const above = prefix === "" ? "" : `${prefix}/`;
  const url = (key: string): string => `/v1/kv/${key.split("/").map(segment).join("/")}`;
  return {
    scheme: uri.scheme,
    place: ({ name, id }) => `${above}${name}/${id}`,
    content: keyValue,
    ping: (signal) => api.ping(uri.scheme, signal),
    async read(places, signal) {
      return await readEach(places, async (key) => {
        const answer = await api.request("GET", `${url(key)}?raw`, signal);
        if (answer.status === 404) return undefined;
        if (answer.status !== 200) throw unexpected("", answer);
        return answer.text;
      });
    },
    async list(signal) {
      const answer = await api.request("GET", `${url(above)}?keys`, signal);
      if (answer.status === 404) return [];
      if (answer.status !== 200) throw unexpected("", answer);
      return standingKeys(JSON.parse(answer.text) as readonly string[], above);
    },
    async write(entry, signal) {
      const answer = await api.request("PUT", url(this.place(entry)), signal, keyValue(entry));
      if (answer.status !== 200) throw unexpected("consulkv: failed to register service: ", answer);
    },
    async refresh() {},
    async remove(place, signal) {
      const answer = await api.request("DELETE", url(place), signal);
      if (answer.status !== 200) throw unexpected("consulkv: failed to deregister service: ", answer);
    },
    close() {},
  };
}
