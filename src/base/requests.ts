// What HTTP dialects read of a request before they answer it: who sent it, its body, the names in its path.
import type { Clock } from "./clock.ts";
import { type Code, InputError, TrilithError } from "./error.ts";
import type { IncomingMessage, ServerResponse } from "./http.ts";

/** A body that pauses for longer is given up with its connection. */
const BODY_IDLE_MS = 30_000;

/** The address that a request comes from: IPv4 as such also where it came as IPv6, without a zone; undefined over a unix socket. */
export function callerOf({ socket }: Pick<IncomingMessage, "socket">): string | undefined {
  return socket.remoteAddress?.replace(/^::ffff:(?=\d+\.)/i, "").replace(/%.*$/, "");
}

/** True for requests over loopback or a unix socket that no proxy hands on. */
export function isFromHere(request: Pick<IncomingMessage, "socket" | "headers">): boolean {
  if (request.headers["x-forwarded-for"] !== undefined || request.headers.forwarded !== undefined) return false;
  const caller = callerOf(request);
  // Who speaks over a unix socket is on this host, too.
  return caller === undefined || caller === "::1" || caller.startsWith("127.");
}

/**
 * The web page of elsewhere on whose behalf a browser asks; undefined where no browser says so, and for the listener's own pages. Those count only
 * under an IP address or "localhost": whoever owns a name may have it lead here (DNS rebinding).
 */
export function foreignPageOf({ headers: { origin, host } }: Pick<IncomingMessage, "headers">): string | undefined {
  if (origin === undefined) return undefined;
  const page = URL.canParse(origin) ? new URL(origin) : undefined;
  const unnamed = page !== undefined && /^(localhost|\[.*\]|\d+(\.\d+){3})$/.test(page.hostname);
  return unnamed && page.host === host?.toLowerCase() ? undefined : origin;
}

/** The whole body. What lies beyond the limit stays unread, so that the refusal can be answered. @throws TrilithError `too-large` with `limit` as its text */
export async function bodyOf(
  request: IncomingMessage,
  clock: Pick<Clock, "after">,
  maxBytes: number,
  limit = `a body may have ${maxBytes} bytes`,
): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  const late = (): void =>
    void request.destroy(new TrilithError("timeout", `the body paused for more than ${BODY_IDLE_MS / 1000} s`));
  let timer = clock.after(BODY_IDLE_MS, late);
  try {
    // Destroying the request would take the answer with it.
    for await (const piece of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      timer.cancel();
      bytes += piece.length;
      if (bytes > maxBytes) throw new TrilithError("too-large", limit);
      pieces.push(piece);
      timer = clock.after(BODY_IDLE_MS, late);
    }
  } finally {
    timer.cancel();
  }
  return Buffer.concat(pieces, bytes);
}

/** A name as it stands in a path, decoded. @throws InputError */
export function decodeName(coded: string): string {
  try {
    return decodeURIComponent(coded);
  } catch (error) {
    throw new InputError(`path "${coded}"`, "expected UTF-8 in percent encoding", error);
  }
}

/** The HTTP status of every code, for dialects that have no words of their own for what goes wrong; Consul's has. */
export const STATUS_OF: Readonly<Record<Code, number>> = {
  invalid: 400,
  "not-found": 404,
  conflict: 409,
  "too-large": 413,
  "not-allowed": 403,
  unsupported: 501,
  unavailable: 503,
  timeout: 504,
  stopped: 503,
  locked: 503,
  "newer-data": 500,
  damaged: 500,
  "disk-full": 507,
  "read-only": 503,
  "address-in-use": 500,
  internal: 500,
};

/** Answers with JSON and a line's end; `pretty`: for people. */
export function sendJson(response: ServerResponse, status: number, json: unknown, pretty = false): void {
  const body = Buffer.from(`${JSON.stringify(json, undefined, pretty ? 2 : undefined)}\n`);
  response
    .writeHead(status, {
      "content-type": "application/json; charset=utf-8",
      "content-length": body.length,
      "cache-control": "no-store",
      "x-content-type-options": "nosniff",
    })
    .end(body);
}
