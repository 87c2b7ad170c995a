// Where each backend writes a service, and what: odd paths, names and addresses.
import { expect, it } from "vitest";
import { systemClock } from "../../../base/clock.ts";
import type { HttpRequest } from "../../../base/http.ts";
import type { BackendGround, Entry } from "./backend.ts";
import { openBackend } from "./open.ts";
import { parseRegistryUri, type RegistryUri } from "./uri.ts";

const entry = (change: Partial<Entry> = {}): Entry => ({
  id: "host:c0:80",
  name: "web",
  ip: "192.0.2.7",
  port: 21_080,
  tags: [],
  labels: {},
  attributes: {},
  checks: [],
  containerId: "c".repeat(64),
  containerHostname: "cccccccccccc",
  exposedPort: 80,
  ...change,
});

const asked: Pick<HttpRequest, "url" | "socketPath">[] = [];
const ground = {
  clock: systemClock,
  http: {
    request: async (request: HttpRequest) => {
      asked.push(request);
      throw new Error("nobody is there");
    },
  },
  env: () => undefined,
  say: () => {},
  ttlSeconds: 0,
  lost: () => {},
} as unknown as BackendGround;
const open = (uri: string): NonNullable<ReturnType<typeof openBackend>> => {
  const backend = openBackend(parseRegistryUri(uri) as RegistryUri, ground);
  if (backend === undefined) throw new Error(`${uri} has no backend`);
  return backend;
};
const at = (uri: string, change?: Partial<Entry>): string => open(uri).place(entry(change));

const six = { ip: "2001:db8::5" };

it.each([
  ["etcd://h:1/services", {}, "/services/web/host:c0:80"],
  ["etcd://h:1", {}, "/web/host:c0:80"],
  ["etcd://h:1/", {}, "/web/host:c0:80"],
  ["etcd://h:1/a/b/", {}, "/a/b/web/host:c0:80"],
  ["etcd:///a", { id: "my/id", name: "a b" }, "/a/a b/my/id"],
  ["skydns2://h:1/cluster.local", {}, "/skydns/local/cluster/web/host:c0:80"],
  ["consulkv://h:1/a/b", {}, "a/b/web/host:c0:80"],
  ["consulkv-unix:///run/consul.sock:/a/b", {}, "a/b/web/host:c0:80"],
  ["consulkv-unix:///run/consul.sock", {}, "web/host:c0:80"],
  ["zookeeper://h:1/base", {}, "/base/web/192.0.2.7:21080"],
  ["zookeeper://h:1/base", six, "/base/web/2001:db8::5:21080"],
  ["zookeeper://h:1", { ip: "" }, "/web/:21080"],
])("%s %o", (uri, change, place) => {
  expect(at(uri, change)).toBe(place);
});

it.each([
  ["etcd://h:1/s", six, "[2001:db8::5]:21080"],
  ["consulkv://h:1/s", six, "[2001:db8::5]:21080"],
  ["etcd://h:1/s", { ip: "" }, ":21080"],
  ["skydns2://h:1/d", six, '{"host":"2001:db8::5","port":21080}'],
  [
    "zookeeper://h:1/s",
    { ...six, tags: ["b", "<a>"], attributes: { x: "1&2" } },
    '{"Name":"web","IP":"2001:db8::5","PublicPort":21080,"PrivatePort":80,"ContainerID":"cccccccccccc","Tags":["b","\\u003ca\\u003e"],"Attrs":{"x":"1\\u00262"}}',
  ],
])("%s holds for %o", (uri, change, content) => {
  expect(open(uri).content(entry(change))).toBe(content);
});

it("consulkv-unix:// takes what stands before the colon for the socket", async () => {
  asked.length = 0;
  await expect(
    open("consulkv-unix:///run/consul.sock:/a").write(entry(), new AbortController().signal),
  ).rejects.toThrow();
  expect(asked[0]).toMatchObject({ socketPath: "/run/consul.sock", url: "http://localhost/v1/kv/a/web/host:c0:80" });
});
