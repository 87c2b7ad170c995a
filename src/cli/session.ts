// A session that a command of ours holds at an agent: renewed while it is needed, ended when it is not.
import { type Clock, systemClock } from "../base/clock.ts";
import { messageOf, TrilithError } from "../base/error.ts";
import type { Client } from "./client.ts";

const SESSION_TTL_MS = 15_000;
const RENEW_RETRY_MS = 1_000;

/** Makes a client whose requests end with the signal. */
export type ClientWith = (signal: AbortSignal) => Client;

/** A session that is renewed until it ends. */
export class Session {
  readonly id: string;
  readonly client: Client;
  /** Aborted, with the reason, when it has ended or may have. */
  readonly lost: AbortController = new AbortController();
  /** Aborted when nobody has to look any more. */
  readonly watching: AbortController = new AbortController();
  readonly #clock: Clock;
  readonly #what: string;
  readonly #renewing = new AbortController();
  readonly #renewal: Promise<void>;
  #ended = false;

  /**
   * Makes one with these fields of Consul's, and a time to live. `what` hangs on it, for messages: "the lock".
   * @throws TrilithError of the agent
   */
  static async create(
    what: string,
    fields: Readonly<Record<string, unknown>>,
    clientWith: ClientWith,
    clock: Clock = systemClock,
  ): Promise<Session> {
    const client = clientWith(new AbortController().signal);
    try {
      const body = JSON.stringify({ ...fields, TTL: `${SESSION_TTL_MS / 1000}s` });
      const answer = await client.send("PUT", "/v1/session/create", { body });
      const { ID } = JSON.parse(answer) as { readonly ID: string };
      return new Session(ID, what, client, clock, clientWith);
    } catch (error) {
      await client.close();
      throw error;
    }
  }

  private constructor(id: string, what: string, client: Client, clock: Clock, clientWith: ClientWith) {
    this.id = id;
    this.#what = what;
    this.client = client;
    this.#clock = clock;
    this.#renewal = this.#renew(clientWith(this.#renewing.signal));
  }

  async #renew(client: Client): Promise<void> {
    const { signal } = this.#renewing;
    let renewedAtMs = this.#clock.monotonic();
    let pauseMs = SESSION_TTL_MS / 2;
    try {
      while (!signal.aborted) {
        await this.#clock.sleep(pauseMs, signal);
        try {
          const answer = await client.request("PUT", `/v1/session/renew/${this.id}`, { missing: true });
          await answer.text();
          if (answer.status === 404) return this.lose(`${this.#what} was lost: its session has ended`);
          renewedAtMs = this.#clock.monotonic();
          pauseMs = SESSION_TTL_MS / 2;
        } catch (error) {
          if (signal.aborted) return;
          if (this.#clock.monotonic() - renewedAtMs > SESSION_TTL_MS)
            return this.lose(`${this.#what} is taken for lost: its session could not be renewed (${messageOf(error)})`);
          pauseMs = RENEW_RETRY_MS;
        }
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      await client.close();
    }
  }

  /** Gives it up for the reason that is told; what hangs on it counts as lost. */
  lose(why: string): void {
    this.lost.abort(new TrilithError("conflict", why));
    this.watching.abort();
  }

  /** What hangs on it is given back: nobody has to look after it any more. */
  stopWatching(): void {
    this.watching.abort();
  }

  /** Ends the session at the agent; what cannot be told ends by its time to live. */
  async end(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.watching.abort();
    this.#renewing.abort();
    await this.#renewal;
    try {
      await this.client.send("PUT", `/v1/session/destroy/${this.id}`, { headTimeoutMs: 5_000 });
    } catch {
      // Its time to live ends it where the agent cannot be told.
    } finally {
      await this.client.close();
    }
  }
}
