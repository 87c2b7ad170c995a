// What Consul's HTTP API would answer about a service now, for `why`.
import { hostPort } from "../../base/net.ts";
import type { Told } from "../../contracts/protocol.ts";
import type { Fetched } from "./watch-plan.ts";

type Json = Readonly<Record<string, unknown>>;
const object = (value: unknown): Json => (typeof value === "object" && value !== null ? (value as Json) : {});

/** Asks as clients do who want healthy instances. */
export async function tellOf(
  ask: (target: string, signal: AbortSignal) => Promise<Fetched>,
  service: string,
  signal: AbortSignal,
): Promise<readonly Told[]> {
  const target = `/v1/health/service/${encodeURIComponent(service)}`;
  const [passing, all] = await Promise.all([ask(`${target}?passing=1`, signal), ask(target, signal)]);
  const count = Array.isArray(all.json) ? all.json.length : 0;
  const found = (Array.isArray(passing.json) ? passing.json : []).map((entry) => {
    const [of, node] = [object(object(entry)["Service"]), object(object(entry)["Node"])];
    const address = of["Address"] === "" ? node["Address"] : of["Address"];
    // A service without a port has no such key in Consul's answer.
    const at = of["Port"] === undefined ? String(address) : hostPort(String(address), Number(of["Port"]));
    return `${at} (${of["ID"]} on ${node["Node"]})`;
  });
  const text = found.length === 0 ? "[]" : found.sort().join(", ");
  return [{ to: "everybody", text: `GET ${target}?passing=1: ${text}; without ?passing: ${count} in all` }];
}
