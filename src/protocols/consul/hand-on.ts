// Requests whose body names another datacenter: handed on there by this agent's own listener, which knows where it is.
import { TrilithError } from "../../base/error.ts";
import type { Call, Reply } from "./call.ts";
import { ownDatacenterOnly } from "./options.ts";

const HEAD_TIMEOUT_MS = 10_000;

/**
 * The answer of the datacenter that a body names; undefined where that is this one, or none was named.
 * @throws Refusal 500 for a datacenter that nobody here knows
 */
export async function handOn(call: Call, datacenter: string | undefined, body: Uint8Array): Promise<Reply | undefined> {
  const { ground, request, path, method } = call;
  const { self, http } = ground;
  const named = (datacenter ?? "").toLowerCase();
  if (named === "" || named === self.datacenter.toLowerCase()) return undefined;
  if (self.joined !== true && self.datacenters?.includes(named) !== true) ownDatacenterOnly(named);
  const at = self.listening.get("http");
  if (at === undefined)
    throw new TrilithError("unavailable", `the agent does not listen for HTTP, which handing on to "${named}" needs`);
  const token = request.headers["x-consul-token"];
  const target = `${path}?dc=${encodeURIComponent(named)}`;
  const unix = at.startsWith("unix://");
  const response = await http.request({
    ...{ method, body, signal: call.signal, headTimeoutMs: HEAD_TIMEOUT_MS },
    headers: typeof token === "string" ? { "X-Consul-Token": token } : {},
    ...(unix
      ? { url: `http://localhost${target}`, socketPath: at.slice("unix://".length) }
      : { url: `http://${at}${target}` }),
  });
  const type = response.headers["content-type"];
  const text = await response.text();
  return {
    status: response.status,
    ...(text === "" ? {} : { text, ...(typeof type === "string" ? { type } : {}) }),
  };
}
