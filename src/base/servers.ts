// Consul servers or Trilith agents that stand for one directory: asked one at a time, the next one where it does not answer.
import type { Clock } from "./clock.ts";
import { codeOf, messageOf, TrilithError } from "./error.ts";
import type { Http, HttpRequest, HttpResponse } from "./http.ts";
import type { Log } from "./log.ts";
import type { TlsClient } from "./tls.ts";

/** What is asked of a server: the path with its query behind the server's URL. */
export interface Ask extends Omit<HttpRequest, "url"> {
  readonly path: string;
}

export interface ServersOptions {
  /** `http://host:port`, in the order in which they are tried. */
  readonly urls: readonly string[];
  readonly token?: string | undefined;
  /** For `https:`: how the servers' certificates are looked at. */
  readonly tls?: Omit<TlsClient, "alpn">;
  readonly http: Http;
  readonly clock: Clock;
  readonly log: Log;
}

/** A plain answer is given up after so long without its head. */
const HEAD_MS = 5000;
/** These say that the server itself leads nowhere: another one may. */
const LEADERLESS = /^(No cluster leader|rpc error making call: No cluster leader|No known Consul servers)/;

/** Several servers that stand for the same directory. */
export class Servers {
  readonly urls: readonly string[];
  readonly #options: ServersOptions;
  #at = 0;

  constructor(options: ServersOptions) {
    this.#options = options;
    this.urls = options.urls.map((url) => url.replace(/\/+$/, ""));
    if (this.urls.length === 0) throw new TrilithError("invalid", "no server's URL is given");
  }

  /** The server that is asked first. */
  get current(): string {
    return this.urls[this.#at] as string;
  }

  /** The next one is asked first from now on, unless somebody has moved on already. */
  turnFrom(url: string): void {
    if (this.current === url) this.#at = (this.#at + 1) % this.urls.length;
  }

  /** The headers that every request to a server carries. */
  get headers(): Readonly<Record<string, string>> {
    const { token } = this.#options;
    return token === undefined ? {} : { "x-consul-token": token, "x-trilith-token": token };
  }

  /** Asks one server. @throws TrilithError `unavailable` naming it */
  async askOne(url: string, { path, ...request }: Ask): Promise<HttpResponse> {
    const { clock, http } = this.#options;
    const limitMs = request.headTimeoutMs ?? HEAD_MS;
    // Counted from the beginning: a host that does not even refuse connections is away as well.
    const late = new AbortController();
    const timer = clock.after(limitMs, () =>
      late.abort(new TrilithError("timeout", `${url} did not answer within ${Math.round(limitMs)} ms`)),
    );
    try {
      return await http.request({
        ...request,
        headTimeoutMs: limitMs,
        signal: request.signal === undefined ? late.signal : AbortSignal.any([request.signal, late.signal]),
        url: url + path,
        ...(this.#options.tls === undefined ? {} : { tls: this.#options.tls }),
        headers: { ...this.headers, ...request.headers },
      });
    } catch (error) {
      if (request.signal?.aborted) throw request.signal.reason;
      const code = codeOf(error);
      throw new TrilithError(code === "timeout" ? code : "unavailable", messageOf(error), error);
    } finally {
      timer.cancel();
    }
  }

  /**
   * Asks the current server, then the others; the first that answers stays the current one. What may have arrived and must not be done
   * twice is asked once only (`once`). @throws TrilithError `unavailable` where none answers
   */
  async ask(request: Ask, once = false): Promise<HttpResponse> {
    let failure: unknown;
    for (let tries = 0; tries < this.urls.length; tries++) {
      const url = this.current;
      try {
        const answer = await this.askOne(url, request);
        if (answer.status !== 500 || this.urls.length === 1) return answer;
        const text = await answer.text();
        if (!LEADERLESS.test(text)) return { ...answer, text: async () => text };
        failure = new TrilithError("unavailable", `${url}: ${text}`);
      } catch (error) {
        if (request.signal?.aborted) throw request.signal.reason;
        failure = error;
        if (once && !isRefused(error)) {
          this.turnFrom(url);
          throw error;
        }
      }
      this.turnFrom(url);
    }
    throw failure;
  }

  /**
   * One server's answer in JSON with the index at which it holds, for a blocking query to go on from; a missing key is an empty answer.
   * @throws TrilithError `unavailable` (not answered, or with another status), `unsupported` (no Consul, and nothing like it)
   */
  async indexed(
    url: string,
    path: string,
    signal: AbortSignal,
    headTimeoutMs: number = HEAD_MS,
  ): Promise<{ readonly value: unknown; readonly index: number }> {
    const answer = await this.askOne(url, { path, signal, headTimeoutMs, headers: { "accept-encoding": "identity" } });
    const body = await answer.text();
    if (answer.status !== 200 && answer.status !== 404)
      throw new TrilithError("unavailable", `${url}${path}: status ${answer.status}: ${body.slice(0, 200)}`);
    const index = Number(answer.headers["x-consul-index"] ?? 0);
    if (!(index >= 1))
      throw new TrilithError(
        "unsupported",
        `${url}${path}: no X-Consul-Index; is that a Consul server or a Trilith agent?`,
      );
    if (answer.status === 404 && !path.startsWith("/v1/kv/"))
      throw new TrilithError("unsupported", `${url}${path}: status 404; is that a Consul server or a Trilith agent?`);
    try {
      return { value: answer.status === 404 || body === "" ? undefined : JSON.parse(body), index };
    } catch (error) {
      throw new TrilithError("unavailable", `${url}${path}: the answer is not JSON`, error);
    }
  }

  /** Like `ask`, with an answer of status 200 in JSON. @throws TrilithError `unavailable` for any other answer */
  async json(request: Ask): Promise<{ readonly value: unknown; readonly index: number }> {
    const answer = await this.ask(request);
    return jsonOf(answer.status, await answer.text(), answer.headers, `${this.current}${request.path}`);
  }
}

/** An answer of status 200 in JSON, and Consul's index. `from`: who was asked for what. @throws TrilithError `unavailable` for any other answer */
export function jsonOf(
  status: number,
  text: string,
  headers: HttpResponse["headers"],
  from: string,
): { readonly value: unknown; readonly index: number } {
  if (status !== 200) throw new TrilithError("unavailable", `${from}: status ${status}: ${text.slice(0, 200)}`);
  try {
    return { value: JSON.parse(text), index: Number(headers["x-consul-index"] ?? 0) };
  } catch (error) {
    throw new TrilithError("unavailable", `${from}: the answer is not JSON`, error);
  }
}

/** True where the request has certainly not arrived. */
function isRefused(error: unknown): boolean {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    const { code } = at as { code?: unknown };
    if (code === "ECONNREFUSED" || code === "EHOSTUNREACH" || code === "ENETUNREACH" || code === "ENOTFOUND")
      return true;
    if (code === "UND_ERR_CONNECT_TIMEOUT") return true;
  }
  return false;
}
