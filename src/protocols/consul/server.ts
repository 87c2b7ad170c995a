// HTTP in and out for all routes: finds the row, hands over the call, writes the reply as Consul's server does.
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { codeOf, messageOf } from "../../base/error.ts";
import type { Handler, IncomingMessage, ServerResponse } from "../../base/http.ts";
import { withinNetworks } from "../../base/networks.ts";
import { isPrintable } from "../../wire/consul-definition/faults.ts";
import { AskedBefore } from "./cache.ts";
import type { Call, ConsulGround, Reply, Row } from "./call.ts";
import type { ConsulConfig } from "./config.ts";
import { Refusal, STATUS } from "./errors.ts";
import { encodeExactJson, encodeJson } from "./json.ts";
import { cleanPath, decodePath, routePath, splitTarget } from "./path.ts";
import { Query } from "./query.ts";

const compress = promisify(gzip);
/** Smaller bodies are not compressed. */
const GZIP_MIN_BYTES = 1400;
/** A body may pause for so long. */
const BODY_IDLE_MS = 30_000;
/** How much and how long a refused body is still read. */
const DRAIN_MAX_BYTES = 64 << 20;
const DRAIN_MAX_MS = 10_000;
const READING: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"]);
const TEXT = "text/plain; charset=utf-8";

/** Routes by Go's rules: exact patterns first, else the longest pattern with a slash at its end. */
export class RouteTable {
  readonly #rows = new Map<string, Row>();
  constructor(rows: readonly Row[]) {
    for (const row of rows) {
      if (this.#rows.has(row.pattern)) throw new Error(`two routes for ${row.pattern}`);
      this.#rows.set(row.pattern, row);
    }
  }
  find(path: string): Row | undefined {
    const exact = this.#rows.get(path);
    if (exact !== undefined) return exact;
    for (let at = path.lastIndexOf("/"); at > 0; at = path.lastIndexOf("/", at - 1)) {
      const row = this.#rows.get(path.slice(0, at + 1));
      if (row !== undefined) return row;
    }
    return undefined;
  }
  has(pattern: string): boolean {
    return this.#rows.has(pattern);
  }
}

/** The handler for everything below `/`. */
export function createHandler(rows: readonly Row[], config: ConsulConfig, ground: ConsulGround): Handler {
  const table = new RouteTable(rows);
  const log = ground.log;
  const askedBefore = new AskedBefore(ground.clock);

  const within = withinNetworks(config.allowWriteFrom);
  /** Whoever comes over a unix socket is in no network. */
  const mayWrite = ({ method, socket }: IncomingMessage): boolean =>
    config.allowWriteFrom.length === 0 || READING.has(method ?? "GET") || within(socket.remoteAddress ?? "");

  async function callRow(
    row: Row,
    path: string,
    query: string,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const method = request.method ?? "GET";
    const common: Record<string, string> = {
      ...config.responseHeaders,
      Vary: "Accept-Encoding",
      "X-Consul-Default-Acl-Policy": "allow",
    };
    const allow = (): string => `OPTIONS,${row.methods.join(",")}`;
    const gone = new AbortController();
    response.once("close", () => {
      if (!response.writableFinished) gone.abort(new Refusal(408, "the client went away"));
    });
    const call: Call = {
      ground,
      config,
      request,
      method,
      path,
      suffix: path.slice(row.pattern.length),
      query: new Query(query),
      signal: gone.signal,
      askedBefore,
      body: (
        maxBytes = config.maxBodyBytes,
        tooLarge = (bytes) => `Request body(${bytes} bytes) too large, max size: ${maxBytes} bytes.`,
      ) => readBody(request, maxBytes, tooLarge, ground.clock, gone.signal),
    };
    let reply: Reply | undefined;
    try {
      // What Go cannot read as a query it answers without a word.
      if (call.query.malformed) reply = { status: 500 };
      else if (config.blockEndpoints.some((prefix) => path.startsWith(prefix)))
        reply = { status: 403, text: "Endpoint is blocked by agent configuration" };
      else if (method === "OPTIONS" && row.ownMethods !== true) reply = { headers: { Allow: allow() } };
      else if (!row.methods.includes(method) && row.ownMethods !== true)
        reply = { status: 405, headers: { Allow: allow() }, text: `method ${method} not allowed` };
      else if (!mayWrite(request)) reply = { status: 403, text: "Access is restricted" };
      else reply = await row.endpoint(call);
    } catch (error) {
      if (gone.signal.aborted) return;
      reply = replyTo(error, (text, fields) => log.error(text, { method, path, ...fields }));
    }
    await send(response, reply ?? {}, common, call);
  }

  async function send(
    response: ServerResponse,
    reply: Reply,
    common: Record<string, string>,
    call: Call,
  ): Promise<void> {
    const headers = { ...common, ...reply.headers };
    let body: Uint8Array | undefined;
    if (reply.json !== undefined) {
      const pretty = call.query.has("pretty");
      const indent = pretty || (config.indent ?? ground.self.dev) ? 4 : 0;
      const text = (reply.exact === true ? encodeExactJson : encodeJson)(reply.json, indent);
      body = Buffer.from(pretty ? `${text}\n` : text);
      headers["Content-Type"] ??= "application/json";
    } else if (reply.text !== undefined || reply.bytes !== undefined) {
      body = reply.bytes ?? Buffer.from(reply.text as string);
      headers["Content-Type"] ??= reply.type ?? TEXT;
    }
    if (reply.stream !== undefined) return sendStream(response, reply, headers);
    if (body !== undefined && body.length >= GZIP_MIN_BYTES && acceptsGzip(call.request.headers["accept-encoding"])) {
      body = await compress(body);
      headers["Content-Encoding"] = "gzip";
    }
    if (call.signal.aborted) return;
    headers["Content-Length"] = String(body?.length ?? 0);
    response.writeHead(reply.status ?? 200, headers);
    response.end(body);
  }

  /** A failure on the way can only be told by breaking off: the status is long gone. */
  function sendStream(response: ServerResponse, reply: Reply, headers: Record<string, string>): Promise<void> {
    response.writeHead(reply.status ?? 200, { "Content-Type": reply.type ?? TEXT, ...headers });
    response.flushHeaders();
    return pipeline(reply.stream as Readable, response).catch((error: unknown) => {
      if (!response.destroyed) response.destroy();
      const { code } = error as { readonly code?: string };
      if (code !== "ERR_STREAM_PREMATURE_CLOSE" && code !== "ABORT_ERR" && codeOf(error) !== "stopped")
        log.warn("an answer broke off", { error: messageOf(error) });
    });
  }

  return async (request, response) => {
    const fault = requestFault(request);
    if (fault !== undefined) {
      const [status, text] = fault;
      response.writeHead(status, text, { "Content-Type": TEXT, Connection: "close" });
      response.end(`${status} ${text}`);
      return;
    }
    const { path: escaped, query } = splitTarget(request.url ?? "/");
    const path = decodePath(escaped);
    if (path === undefined) {
      response.writeHead(400, { "Content-Type": TEXT, "Content-Length": "15", Connection: "close" });
      response.end("400 Bad Request");
      return;
    }
    if (!isPrintable(path)) {
      response.writeHead(400, { "Content-Length": "0" }).end();
      return;
    }
    const clean = cleanPath(escaped);
    const row = table.find(routePath(clean));
    if (row === undefined && (table.has(`${clean}/`) || (config.ui && clean === "/ui")))
      return redirect(response, request, 307, `${clean}/${query === "" ? "" : `?${query}`}`);
    if (clean !== escaped) return redirect(response, request, 307, clean + (query === "" ? "" : `?${query}`));
    if (row !== undefined) return callRow(row, path, query, request, response);
    if (path !== "/") {
      const hint = path.includes("/v1/")
        ? "not a recognized HTTP API endpoint"
        : config.ui && path.startsWith("/ui/")
          ? 'there is no page for browsers here; "trilith list", "trilith why" and "trilith doctor" tell what it would show'
          : "if attempting to use the HTTP API, ensure the path starts with '/v1/'";
      plain(response, 404, `Invalid URL path: ${hint}\n`);
    } else if (config.ui) redirect(response, request, 301, "/ui/");
    else
      plain(
        response,
        200,
        "Consul Agent: UI disabled. To enable, set ui_config.enabled=true in the agent configuration and restart.",
      );
  };

  function plain(response: ServerResponse, status: number, text: string): void {
    response.writeHead(status, {
      ...config.responseHeaders,
      "Content-Type": TEXT,
      "Content-Length": Buffer.byteLength(text),
    });
    response.end(text);
  }
}

/** The answer to something thrown. */
function replyTo(error: unknown, report: (text: string, fields: Record<string, unknown>) => void): Reply {
  if (error instanceof Refusal) return { status: error.status, headers: error.headers, text: error.message };
  const status = STATUS[codeOf(error)];
  // Whoever waits while the agent stops is told so; that is no failure.
  const code = codeOf(error);
  // Where it happened matters only when it is a defect; a full disk or a store that is away is told in a sentence.
  if (status >= 500 && code !== "stopped")
    report("request failed", {
      error: code === "internal" && error instanceof Error ? (error.stack ?? error.message) : messageOf(error),
    });
  return { status, text: messageOf(error) };
}

/** As Go's http.Redirect: a body for GET only. */
function redirect(response: ServerResponse, request: IncomingMessage, status: 301 | 307, to: string): void {
  const location = to.replace(/[^\x21-\x7e]/g, (char) => encodeURIComponent(char));
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.writeHead(status, { Location: location, "Content-Length": "0" }).end();
    return;
  }
  const html = location.replace(/[&<>"']/g, (char) => HTML[char] as string);
  const text = `<a href="${html}">${status === 301 ? "Moved Permanently" : "Temporary Redirect"}</a>.\n\n`;
  response.writeHead(status, {
    Location: location,
    "Content-Type": "text/html; charset=utf-8",
    "Content-Length": Buffer.byteLength(text),
  });
  response.end(request.method === "GET" ? text : undefined);
}
const HTML: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;" };

/** What Go's server has against a request before it looks at its path: status and text. */
function requestFault(request: IncomingMessage): readonly [status: number, text: string] | undefined {
  if (request.httpVersionMajor > 1) return [505, "HTTP Version Not Supported: unsupported protocol version"];
  if (request.httpVersionMajor < 1) return [400, "Bad Request"];
  const host = hostFault(request);
  return host === undefined ? undefined : [400, `Bad Request: ${host}`];
}

function hostFault({ httpVersion, headersDistinct }: IncomingMessage): string | undefined {
  const hosts = headersDistinct["host"] ?? [];
  if (hosts.length === 0) return httpVersion === "1.1" ? "missing required Host header" : undefined;
  if (hosts.length > 1) return "too many Host headers";
  return /^[A-Za-z0-9!$%&'()*+,\-.:;=[\]_~]*$/.test(hosts[0] as string) ? undefined : "malformed Host header";
}

/** True where gzip is named with a weight above 0. */
function acceptsGzip(header: string | string[] | undefined): boolean {
  for (const item of String(header ?? "").split(",")) {
    const [coding = "", ...parameters] = item.split(";").map((part) => part.trim().toLowerCase());
    if (coding !== "gzip") continue;
    const weight = parameters.find((parameter) => parameter.startsWith("q="));
    return weight === undefined || Number(weight.slice(2)) > 0;
  }
  return false;
}

/** A whole body. @throws Refusal 413 over the limit, 408 when it pauses for too long */
function readBody(
  request: IncomingMessage,
  maxBytes: number,
  tooLarge: (bytes: number) => string,
  clock: ConsulGround["clock"],
  gone: AbortSignal,
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const announced = Number(request.headers["content-length"] ?? 0);
    const chunks: Buffer[] = [];
    let size = 0;
    let timer = clock.after(BODY_IDLE_MS, onIdle);
    const end = (): void => {
      timer.cancel();
      request.off("data", onData).off("end", onEnd).off("error", onGone).off("close", onGone);
      gone.removeEventListener("abort", onGone);
    };
    function onIdle(): void {
      end();
      reject(
        new Refusal(408, `the request's body paused for more than ${BODY_IDLE_MS / 1000} s`, { Connection: "close" }),
      );
    }
    function onData(chunk: Buffer): void {
      size += chunk.length;
      if (size > maxBytes) {
        end();
        drain(request, clock);
        reject(new Refusal(413, tooLarge(Math.max(size, announced))));
        return;
      }
      chunks.push(chunk);
      timer.cancel();
      timer = clock.after(BODY_IDLE_MS, onIdle);
    }
    function onEnd(): void {
      end();
      resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks, size));
    }
    function onGone(): void {
      end();
      reject(new Refusal(408, "the client went away"));
    }
    if (announced > maxBytes) {
      end();
      drain(request, clock);
      reject(new Refusal(413, tooLarge(announced)));
      return;
    }
    gone.addEventListener("abort", onGone, { once: true });
    request.on("data", onData).on("end", onEnd).on("error", onGone).on("close", onGone);
  });
}

/** Throws away the rest of a refused body, so that its client gets to read the answer; within bounds. */
function drain(request: IncomingMessage, clock: ConsulGround["clock"]): void {
  let left = DRAIN_MAX_BYTES;
  const stop = (): void => void request.destroy();
  const timer = clock.after(DRAIN_MAX_MS, stop);
  request.on("error", () => {});
  request.on("data", (chunk: Buffer) => {
    left -= chunk.length;
    if (left < 0) stop();
  });
  request.once("close", () => timer.cancel());
  request.once("end", () => timer.cancel());
}
