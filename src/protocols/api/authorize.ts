// The one place of this dialect that decides who may write.
import { createHash, timingSafeEqual } from "node:crypto";
import { TrilithError } from "../../base/error.ts";
import type { IncomingMessage } from "../../base/http.ts";
import { callerOf, foreignPageOf, isFromHere } from "../../base/requests.ts";

/**
 * Lets a write pass or throws. From this host everybody may write, except web pages of elsewhere (a browser says which page asks);
 * from other hosts, and through proxies, whoever has the token. @throws TrilithError `not-allowed`
 */
export function authorizeWrite(request: IncomingMessage, token: string | undefined): void {
  if (token !== undefined && hasToken(request, token)) return;
  const page = foreignPageOf(request);
  if (page !== undefined) throw new TrilithError("not-allowed", `a web page of ${page} may not change anything here`);
  if (isFromHere(request)) return;
  const from = callerOf(request) ?? "on a unix socket";
  const forwarded = request.headers["x-forwarded-for"] ?? request.headers.forwarded;
  const who = forwarded === undefined ? `${from}` : `behind the proxy ${from} (${forwarded})`;
  throw new TrilithError(
    "not-allowed",
    token === undefined
      ? `changes from other hosts (${who}) need a token, and this agent has none configured: set protocols.api.token, or ask on the agent's own host`
      : `changes from other hosts (${who}) need the agent's token in the header X-Trilith-Token or Authorization: Bearer`,
  );
}

/**
 * Lets a client host pass or throws. Where this agent has a token, client hosts need it; else they may what anybody may who reaches
 * Consul's API here, which takes the same registrations. Web pages may not. @throws TrilithError `not-allowed`
 */
export function authorizePeer(request: IncomingMessage, token: string | undefined): void {
  if (request.headers.origin !== undefined)
    throw new TrilithError("not-allowed", `a web page of ${request.headers.origin} is not a client host`);
  if (token === undefined || hasToken(request, token) || isFromHere(request)) return;
  const what =
    tokensOf(request).length === 0
      ? "a client host needs the token of the agent that it joins"
      : "the token that this client host gives is not that of the agent that it joins";
  throw new TrilithError("not-allowed", `${what} (--join-token, or join_token in its configuration)`);
}

function hasToken(request: IncomingMessage, token: string): boolean {
  return tokensOf(request).some((text) => timingSafeEqual(digest(text), digest(token)));
}

/** What was given as one. */
function tokensOf(request: IncomingMessage): readonly string[] {
  const bearer = /^Bearer\s+(\S+)\s*$/i.exec(request.headers.authorization ?? "")?.[1];
  // The command line sends one token to every dialect, in Consul's header.
  const given = [request.headers["x-trilith-token"], request.headers["x-consul-token"], bearer];
  return given.filter((text) => typeof text === "string");
}

/** Of equal length for any text, as the comparison in constant time wants it. */
function digest(text: string): Uint8Array {
  return createHash("sha256").update(text).digest();
}
