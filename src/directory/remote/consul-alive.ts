// This host's sign of life in a Consul: a key that a session holds.
import { TrilithError } from "../../base/error.ts";
import type { Servers } from "../../base/servers.ts";
import { keyOf, type Tables } from "../../model/record.ts";
import { type Json, text } from "../../wire/consul-catalog.ts";
import type { Mirror } from "./consul-mirror.ts";
import { ALIVE_PREFIX } from "./consul-wire.ts";

/** Consul takes no shorter TTL. */
const LEAST_TTL_S = 10;

export class SignOfLife {
  readonly #servers: Servers;
  readonly #url: string;
  readonly #mirror: Mirror;
  #session: { readonly id: string; readonly life: string } | undefined;

  constructor(servers: Servers, url: string, mirror: Mirror) {
    this.#servers = servers;
    this.#url = url;
    this.#mirror = mirror;
  }

  /** One sign of life: a key held by a session that this renews; the session ends when nobody does, and takes the key along. */
  async give(node: string, life: string, ttlMs: number, signal: AbortSignal): Promise<void> {
    const put = async (path: string, body = ""): Promise<{ status: number; text: string }> => {
      const answer = await this.#servers.askOne(this.#url, { path, method: "PUT", body, signal });
      const said = await answer.text();
      if (answer.status !== 200 && answer.status !== 404)
        throw new TrilithError("unavailable", `${this.#url}${path}: status ${answer.status}: ${said.slice(0, 200)}`);
      return { status: answer.status, text: said };
    };
    if (this.#session?.life === life && (await put(`/v1/session/renew/${this.#session.id}`)).status === 404)
      this.#session = undefined;
    if (this.#session?.life !== life) {
      const created = await put(
        "/v1/session/create",
        JSON.stringify({
          Name: `trilith alive ${node}`,
          TTL: `${Math.max(LEAST_TTL_S, Math.ceil(ttlMs / 1000))}s`,
          LockDelay: "0s",
          Behavior: "delete",
          NodeChecks: [],
        }),
      );
      this.#session = { id: text((JSON.parse(created.text) as Json)["ID"]), life };
    }
    const key = keyOf.alive(node);
    const held = this.#mirror.get("alive", key);
    if ((held?.value as Tables["alive"] | undefined)?.life === life) return;
    const at = `/v1/kv/${ALIVE_PREFIX}${encodeURIComponent(key)}`;
    const taken = await put(`${at}?acquire=${this.#session.id}`, JSON.stringify({ node, life }));
    if (taken.text.trim() === "true") return;
    // The sign of this host's former life is still held: it was this host's own, or a rival's, which the agent has seen to.
    const deleted = await this.#servers.askOne(this.#url, { path: at, method: "DELETE", signal });
    await deleted.text();
    await put(`${at}?acquire=${this.#session.id}`, JSON.stringify({ node, life }));
  }
}
