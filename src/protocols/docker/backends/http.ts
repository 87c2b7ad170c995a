// HTTP requests of backends: bounded, with failures in the words of Go's client, and refusals told apart from outages.
import { messageOf, TrilithError } from "../../../base/error.ts";
import type { HttpRequest } from "../../../base/http.ts";
import { ANSWER_MS, type BackendGround } from "./backend.ts";

export interface Answer {
  readonly status: number;
  readonly text: string;
}

/** Sends one request and reads the whole answer. @throws TrilithError `unavailable` or `timeout` in Go's words */
export async function ask(
  ground: Pick<BackendGround, "http" | "clock">,
  request: HttpRequest,
  signal: AbortSignal,
): Promise<Answer> {
  const limit = new AbortController();
  const onAbort = (): void => limit.abort(signal.reason);
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort, { once: true });
  const timer = ground.clock.after(ANSWER_MS, () =>
    limit.abort(new TrilithError("timeout", `no answer within ${ANSWER_MS} ms`)),
  );
  try {
    const answer = await ground.http.request({ ...request, signal: limit.signal });
    return { status: answer.status, text: await answer.text() };
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw new TrilithError("unavailable", goWords(request, error), error);
  } finally {
    timer.cancel();
    signal.removeEventListener("abort", onAbort);
  }
}

const CONNECT: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connect: connection refused",
  EHOSTUNREACH: "connect: no route to host",
  ENETUNREACH: "connect: network is unreachable",
  ETIMEDOUT: "connect: connection timed out",
  ENOENT: "connect: no such file or directory",
  EACCES: "connect: permission denied",
};

/** `Get "http://…": dial tcp 127.0.0.1:8500: connect: connection refused`. */
function goWords({ url, method = "GET", socketPath }: HttpRequest, error: unknown): string {
  const verb = method.charAt(0) + method.slice(1).toLowerCase();
  const { host, hostname, port, protocol } = new URL(url);
  let code = "";
  for (let at: unknown = error; at instanceof Error && code === ""; at = at.cause)
    code = String((at as NodeJS.ErrnoException).code ?? "").replace(/^[a-z-]+$/, "");
  const said =
    socketPath !== undefined && Object.hasOwn(CONNECT, code)
      ? `dial unix ${socketPath}: ${CONNECT[code]}`
      : code === "ENOTFOUND"
        ? `dial tcp: lookup ${hostname}: no such host`
        : Object.hasOwn(CONNECT, code)
          ? `dial tcp ${port === "" ? `${host}:${protocol === "https:" ? 443 : 80}` : host}: ${CONNECT[code]}`
          : messageOf(error);
  return `${verb} "${url}": ${said}`;
}

/** An answer that is none of those wanted: refused (4xx) or worth another attempt. */
export function unexpected(what: string, { status, text }: Answer): TrilithError {
  const code =
    status === 401 || status === 403
      ? "not-allowed"
      : status >= 400 && status < 500 && status !== 429
        ? "invalid"
        : "unavailable";
  return new TrilithError(code, `${what}Unexpected response code: ${status} (${text.trim().slice(0, 500)})`);
}
