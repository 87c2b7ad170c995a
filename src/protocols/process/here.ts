// Who may state something about this host's programs: only those who are on it.
import type { IncomingMessage } from "../../base/http.ts";
import { isLoopbackHost } from "./ports.ts";

/** True for requests over loopback or a unix socket that no proxy hands on. */
export function isFromHere(request: IncomingMessage): boolean {
  if (request.headers["x-forwarded-for"] !== undefined || request.headers.forwarded !== undefined) return false;
  // Undefined for a unix socket, whose peers are on this host, too.
  const peer = request.socket.remoteAddress?.replace(/^::ffff:/i, "");
  return peer === undefined || isLoopbackHost(peer);
}
