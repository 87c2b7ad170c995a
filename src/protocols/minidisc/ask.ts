// Questions to Minidisc's processes: the recorded client requests, each on a connection of its own, and a Trilith's stream.
import type { Clock } from "../../base/clock.ts";
import { messageOf, TrilithError } from "../../base/error.ts";
import type { Http, HttpRequest, HttpResponse } from "../../base/http.ts";
import type { Net } from "../../base/net.ts";
import {
  type AddrPort,
  addrPortText,
  type Dropped,
  decodeLine,
  decodeServices,
  MARK,
  STREAM,
  type Streamed,
  type WireService,
} from "./wire.ts";

/** What came of a question. `refused`: nobody listens there; `silent`: nothing (whole) came in time; `other`: something else answered. */
export type Reply<T> =
  | ({ readonly kind: "ok" /** A Trilith's mark. */; readonly mark?: string } & T)
  | { readonly kind: "refused" | "silent" | "other"; readonly text: string };

export interface Listed {
  readonly services: readonly WireService[];
  readonly dropped: readonly Dropped[];
  /** As with a ping. */
  readonly python: boolean;
}

/** A line of a stream with what was dropped from it. */
export type Line = Streamed & { readonly dropped: readonly Dropped[] };

export interface Asker {
  services(to: AddrPort, timeoutMs: number, signal?: AbortSignal): Promise<Reply<Listed>>;
  /** `python`: it is the Python implementation, by what its server calls itself. */
  ping(to: AddrPort, timeoutMs: number, signal?: AbortSignal): Promise<Reply<{ readonly python: boolean }>>;
  addDelegate(to: AddrPort, delegate: AddrPort, timeoutMs: number, signal?: AbortSignal): Promise<Reply<object>>;
  /**
   * Holds a connection on which nothing is said; resolves when the other side ends it, which tells of its death at once. Where none comes about
   * or none is kept for long, and after the signal, it resolves with the signal. Not for Python's server, which waits for each connection in turn.
   */
  hold(to: AddrPort, signal: AbortSignal): Promise<void>;
  /**
   * Follows a Trilith's list: each line as it comes, until the connection ends, is silent for `3 * beatMs`, or the signal fires.
   * Never throws; returns how it ended.
   */
  follow(
    to: AddrPort,
    beatMs: number,
    signal: AbortSignal,
    line: (line: Line) => void,
  ): Promise<"ended" | "refused" | "silent">;
}

/** More than that is no list of services of one host. */
const MOST_BYTES = 4 << 20;
const LONGEST_LINE = 4 << 20;

/** Who ends a silent connection sooner lets nobody wait: it is not to be asked in a ring. */
const HELD_MS = 500;

/** Where tailscaled with userspace networking takes connections to the tailnet. */
export interface SocksProxy {
  readonly host: string;
  readonly port: number;
}

export interface AskerMachine {
  readonly http: Pick<Http, "request">;
  readonly clock: Pick<Clock, "after" | "monotonic">;
  readonly net: Pick<Net, "connect">;
}

/** Asks Minidisc peers over HTTP, through a SOCKS proxy where there is one. */
export function createAsker(
  { http, clock, net }: AskerMachine,
  proxy: () => SocksProxy | undefined = () => undefined,
): Asker {
  const send = async (
    to: AddrPort,
    path: string,
    timeoutMs: number,
    signal: AbortSignal | undefined,
    more: Partial<HttpRequest> = {},
  ): Promise<
    | { readonly response: HttpResponse; readonly text: string }
    | { readonly kind: "refused" | "silent" | "other"; readonly text: string }
  > => {
    const limit = limited(clock, timeoutMs, signal);
    try {
      const through = proxy();
      const response = await http.request({
        url: `http://${addrPortText(to)}${path}`,
        ...more,
        // Neither the environment's proxies nor redirects are followed; no connection is left open, which a single-threaded server would wait for.
        headers: { connection: "close", ...more.headers },
        ...(through === undefined ? {} : { socks: through }),
        signal: limit.signal,
      });
      return { response, text: await response.text(MOST_BYTES) };
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      return failure(error, to);
    } finally {
      limit.end();
    }
  };

  return {
    async services(to, timeoutMs, signal) {
      const sent = await send(to, "/services", timeoutMs, signal);
      if ("kind" in sent) return sent;
      const { response, text } = sent;
      if (response.status !== 200) return strange(to, response.status);
      const decoded = decodeServices(text);
      if (decoded === undefined) return { kind: "other", text: `${addrPortText(to)} answers with no list of services` };
      return { kind: "ok", ...markOf(response), ...decoded, python: isPython(response) };
    },
    async ping(to, timeoutMs, signal) {
      const sent = await send(to, "/ping", timeoutMs, signal);
      if ("kind" in sent) return sent;
      const { status } = sent.response;
      if (status !== 200) return strange(to, status);
      return { kind: "ok", ...markOf(sent.response), python: isPython(sent.response) };
    },
    async hold(to, signal) {
      const over = new Promise<void>((resolve) => {
        if (signal.aborted) resolve();
        signal.addEventListener("abort", () => resolve(), { once: true });
      });
      try {
        const socket = await net.connect(to, signal);
        const sinceMs = clock.monotonic();
        const ended = new Promise<void>((resolve) => socket.once("close", () => resolve()));
        // It keeps no program running, and what is said on it is nobody's concern.
        socket
          .unref()
          .resume()
          .on("error", () => {});
        await Promise.race([ended, over]);
        socket.destroy();
        if (clock.monotonic() - sinceMs < HELD_MS) await over;
      } catch {
        // Whether the other side is there is for the pings to say.
        await over;
      }
    },
    async addDelegate(to, delegate, timeoutMs, signal) {
      const sent = await send(to, "/add-delegate", timeoutMs, signal, {
        method: "POST",
        headers: { "content-type": "application/json", [MARK]: "delegate" },
        body: JSON.stringify({ addrPort: addrPortText(delegate) }),
      });
      if ("kind" in sent) return sent;
      return sent.response.status === 200
        ? { kind: "ok", ...markOf(sent.response) }
        : strange(to, sent.response.status);
    },
    async follow(to, beatMs, signal, line) {
      let response: HttpResponse | undefined;
      const through = proxy();
      try {
        response = await http.request({
          url: `http://${addrPortText(to)}${STREAM}?beat=${beatMs}`,
          headers: { connection: "close" },
          headTimeoutMs: Math.max(2_000, beatMs),
          bodyTimeoutMs: 3 * beatMs,
          ...(through === undefined ? {} : { socks: through }),
          signal,
        });
        const { body } = response;
        if (response.status !== 200 || response.headers[MARK.toLowerCase()] === undefined) return "ended";
        let rest = "";
        const text = new TextDecoder();
        for await (const chunk of body as AsyncIterable<Buffer>) {
          if (signal.aborted) break;
          const lines = (rest + text.decode(chunk, { stream: true })).split("\n");
          rest = lines.pop() ?? "";
          // A line that never ends is nobody's list.
          if (rest.length > LONGEST_LINE) break;
          for (const each of lines) {
            const read = each === "" ? undefined : decodeLine(each);
            if (read !== undefined) line(read);
          }
        }
        return "ended";
      } catch (error) {
        const { kind } = failure(error, to);
        return kind === "refused" || kind === "silent" ? kind : "ended";
      } finally {
        response?.body.on("error", () => {}).destroy();
      }
    },
  };
}

const isPython = ({ headers }: HttpResponse): boolean => /python/i.test(String(headers["server"] ?? ""));

const markOf = (response: HttpResponse): { readonly mark?: string } => {
  const mark = response.headers[MARK.toLowerCase()];
  return typeof mark === "string" ? { mark } : {};
};

const strange = (to: AddrPort, status: number): { readonly kind: "other"; readonly text: string } => ({
  kind: "other",
  text: `${addrPortText(to)} answers with status ${status}`,
});

/** ECONNREFUSED alone proves that nobody listens; anything else may be a slow host or a lost packet. */
function failure(
  error: unknown,
  to: AddrPort,
): { readonly kind: "refused" | "silent" | "other"; readonly text: string } {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    const { code } = at as { readonly code?: unknown };
    if (code === "ECONNREFUSED") return { kind: "refused", text: `nobody listens at ${addrPortText(to)}` };
    if (typeof code === "string" && /^HPE_|PARSER/.test(code))
      return { kind: "other", text: `${addrPortText(to)} speaks no HTTP` };
    if (code === "too-large") return { kind: "other", text: `${addrPortText(to)}: ${at.message}` };
  }
  return { kind: "silent", text: `no answer from ${addrPortText(to)}: ${messageOf(error)}` };
}

/** A signal that fires with the given one or after so long; `end` lets go of both. */
function limited(
  clock: Pick<Clock, "after">,
  ms: number,
  signal: AbortSignal | undefined,
): { readonly signal: AbortSignal; end(): void } {
  const limit = new AbortController();
  const stop = (): void => limit.abort(signal?.reason);
  const timer = clock.after(ms, () => limit.abort(new TrilithError("timeout", `nothing within ${ms} ms`)), true);
  if (signal?.aborted) stop();
  // Not AbortSignal.any: what it hangs on a signal that lives long stays there.
  signal?.addEventListener("abort", stop, { once: true });
  return {
    signal: limit.signal,
    end() {
      timer.cancel();
      signal?.removeEventListener("abort", stop);
    },
  };
}
