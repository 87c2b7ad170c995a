// The server's side: /services, /add-delegate and /ping as the Go implementation answers them, and a Trilith's stream besides.
import type { Clock } from "../../base/clock.ts";
import { codeOf } from "../../base/error.ts";
import type { Handler, IncomingMessage, ServerResponse } from "../../base/http.ts";
import { bodyOf, callerOf } from "../../base/requests.ts";
import { type AddrPort, decodeDelegate, encodeServices, MARK, STREAM, type WireService } from "./wire.ts";

/** Who asks. */
export interface Sender {
  readonly address: string;
  /** The User-Agent; "" where it tells none. */
  readonly client: string;
  readonly trilith: boolean;
}

/** What the handler asks of the process it speaks for. */
export interface Spokesman {
  readonly mark: string;
  /** What is listed now; of a leader with what its delegates say within a second. */
  services(): Promise<readonly WireService[]>;
  /** Takes a delegate that announced itself; false where that is forbidden. */
  addDelegate(delegate: AddrPort | undefined, sender: Sender): boolean;
  /** Whether a ping is answered; else its connection ends without a word. */
  pinged(sender: Sender): boolean;
  /** Somebody follows the list: gets every line, and an empty one every `beatMs`. Ends with the response. */
  followed(response: ServerResponse, beatMs: number): void;
}

const LARGEST_BODY = 64 << 10;
const NOT_FOUND = "404 page not found\n";
const NO_HOST = "400 Bad Request: missing required Host header";
const BEAT_MS = { least: 200, most: 60_000, usual: 5_000 } as const;

/** Answers Minidisc's programs and other peers: the list, changes of it, and the stream. */
export function createHandler(spokesman: Spokesman, clock: Pick<Clock, "after">): Handler {
  return async (request, response) => {
    response.setHeader(MARK, spokesman.mark);
    try {
      await answer(spokesman, clock, request, response);
    } finally {
      request.resume();
    }
  };
}

const senderOf = (request: IncomingMessage): Sender => ({
  address: callerOf(request) ?? "",
  client: request.headers["user-agent"] ?? "",
  trilith: request.headers[MARK.toLowerCase()] !== undefined,
});

function end(request: IncomingMessage, response: ServerResponse, status: number): void {
  // A HEAD's reply has no length, as with Go.
  response.writeHead(status, request.method === "HEAD" ? {} : { "Content-Length": 0 }).end();
}

async function answer(
  spokesman: Spokesman,
  clock: Pick<Clock, "after">,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (request.headers.host === undefined && request.httpVersion === "1.1") {
    // As it came from Go: without a length, ended by the connection.
    response.removeHeader("Transfer-Encoding");
    response.writeHead(400, NO_HOST.slice(4), { "Content-Type": "text/plain; charset=utf-8", Connection: "close" });
    response.end(NO_HOST);
    return;
  }
  const { path, query } = pathOf(request.url ?? "/");
  if (path === undefined) {
    // What Go cannot read as a URL reaches none of its pages.
    response.removeHeader("Transfer-Encoding");
    response.writeHead(400, { "Content-Type": "text/plain; charset=utf-8", Connection: "close" });
    response.end("400 Bad Request");
    return;
  }
  // Asked of the server as a whole, which Go answers itself.
  if (path === "*" && request.method === "OPTIONS") return end(request, response, 200);
  switch (path) {
    case "/services": {
      if (request.method !== "GET") return end(request, response, 405);
      const body = Buffer.from(encodeServices(await spokesman.services()));
      response
        .writeHead(200, { "Content-Type": "application/json; charset=utf-8", "Content-Length": body.length })
        .end(body);
      return;
    }
    case "/ping":
      if (!spokesman.pinged(senderOf(request))) return void request.socket.destroy();
      return end(request, response, 200);
    case "/add-delegate": {
      if (request.method !== "POST") return end(request, response, 405);
      const body = await textOf(request, clock);
      const delegate = body === undefined ? "bad" : decodeDelegate(body);
      if (delegate === "bad") return end(request, response, 400);
      return end(request, response, spokesman.addDelegate(delegate, senderOf(request)) ? 200 : 403);
    }
    case STREAM: {
      if (request.method !== "GET") return end(request, response, 405);
      const asked = Number(query.get("beat") ?? BEAT_MS.usual);
      const beatMs = Number.isFinite(asked) ? Math.min(BEAT_MS.most, Math.max(BEAT_MS.least, asked)) : BEAT_MS.usual;
      response.writeHead(200, { "Content-Type": "application/x-ndjson" });
      spokesman.followed(response, beatMs);
      return;
    }
    default:
      response.writeHead(404, {
        "Content-Type": "text/plain; charset=utf-8",
        "X-Content-Type-Options": "nosniff",
        "Content-Length": NOT_FOUND.length,
      });
      response.end(request.method === "HEAD" ? undefined : NOT_FOUND);
  }
}

/** Path and query as Go sees them: the path with its escapes resolved, and otherwise as it came; no path where a "%" is no escape. */
function pathOf(target: string): { readonly path: string | undefined; readonly query: URLSearchParams } {
  const [, raw = "/", query = ""] = /^(?:https?:\/\/[^/?]*)?([^?]*)\??(.*)$/i.exec(target) ?? [];
  let path: string | undefined = raw;
  try {
    path = decodeURIComponent(raw);
  } catch {
    // Escaped bytes that are no UTF-8 name nothing here.
    if (/%(?![0-9a-f]{2})/i.test(raw)) path = undefined;
  }
  return { path, query: new URLSearchParams(query) };
}

/** The body as text; undefined where it is larger than any announcement. */
async function textOf(request: IncomingMessage, clock: Pick<Clock, "after">): Promise<string | undefined> {
  try {
    return (await bodyOf(request, clock, LARGEST_BODY)).toString("utf8");
  } catch (error) {
    if (codeOf(error) === "too-large") return undefined;
    throw error;
  }
}
