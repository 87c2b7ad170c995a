// HTTP, both ways: requests (TCP or unix socket) through undici, a server on node:http that leaves paths and headers untouched.
import { lstat, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import type { Readable } from "node:stream";
import { wrap } from "./error.ts";
import { answerUnread } from "./http-unread.ts";
import { hostPort, type Listening } from "./net.ts";
import { type TlsClient, tlsName, tlsOptions } from "./tls.ts";

export type { IncomingMessage, ServerResponse };

/** Answers one request. A rejection becomes a 500 and is logged; the handler has to end the response otherwise. */
export type Handler = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;

export interface HttpRequest {
  /** `http://host:port/path?query`; with `socketPath` the host only fills the Host header. */
  readonly url: string;
  readonly socketPath?: string;
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  readonly body?: string | Uint8Array | Readable;
  /** For `https:`: how the server's certificate is looked at. */
  readonly tls?: Omit<TlsClient, "alpn">;
  /** A SOCKS5 proxy through which the server is reached. */
  readonly socks?: { readonly host: string; readonly port: number };
  readonly signal?: AbortSignal;
  /** Milliseconds without the response's head; 0 = no limit. Default 30 000. */
  readonly headTimeoutMs?: number;
  /** Milliseconds of silence within the body; 0 = no limit. Default 30 000. */
  readonly bodyTimeoutMs?: number;
}

export interface HttpResponse {
  readonly status: number;
  /** The words behind the status as the server sent them ("Not Found"), which may be none. */
  readonly statusText: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Must be read to its end or destroyed. */
  readonly body: Readable;
  /** The whole body as text. @throws TrilithError `too-large` over `maxBytes` (default 64 MiB) */
  text(maxBytes?: number): Promise<string>;
}

export interface Http {
  /** Sends one request. Redirects are not followed. @throws TrilithError `unavailable`, `timeout` naming the URL */
  request(request: HttpRequest): Promise<HttpResponse>;
  /** Serves; closing ends open connections. Slow headers are cut off after 10 s. The file of a unix socket on which nobody listens any more is taken over. */
  serve(
    on: { readonly host: string; readonly port: number } | { readonly path: string },
    handle: Handler,
  ): Promise<Listening>;
}

/** The path of a URL with a segment %2E or %2E%2E, which names something; URL would take it for "." and "..", and drop it. */
function dottedPath(url: string): string | undefined {
  const path = /^https?:\/\/[^/?#]+(\/[^#]*)/i.exec(url)?.[1] ?? "";
  return /\/(%2e|%2e%2e)([/?]|$)/i.test(path) ? path : undefined;
}

/** What was asked, as a person names it: without its query, which says much to a program and, at times, a secret. */
function whereOf({ url, socketPath }: HttpRequest): string {
  const [asked = ""] = url.split("?");
  return socketPath === undefined ? asked : `${asked.replace(/^https?:\/\/[^/]*/, "")} of unix://${socketPath}`;
}

/** The system's HTTP. `background`: its connections and servers keep no process running; for streams that are listened to beside something else. */
export function createHttp({ background = false }: { readonly background?: boolean } = {}): Http & {
  close(): Promise<void>;
} {
  const agents = new Map<string, import("undici").Dispatcher>();
  const agentFor = async ({ socketPath, tls, socks }: HttpRequest): Promise<import("undici").Dispatcher> => {
    const { Agent, buildConnector, Socks5ProxyAgent } = await import("undici");
    const key = JSON.stringify([socketPath, tls === undefined ? undefined : tlsName(tls), socks]);
    let agent = agents.get(key);
    if (agent === undefined) {
      const connect = {
        ...(socketPath === undefined ? {} : { socketPath }),
        ...(tls === undefined ? {} : tlsOptions(tls)),
      };
      const connector = buildConnector(connect);
      agent =
        socks === undefined
          ? new Agent({
              connect: background
                ? (options, done) =>
                    connector(options, (...[error, socket]) => {
                      socket?.unref();
                      if (error === null) done(null, socket);
                      else done(error, null);
                    })
                : connect,
              // 0 = a connection of its own for each request: one that is taken up again would keep the process running.
              pipelining: background ? 0 : 1,
            })
          : new Socks5ProxyAgent(`socks5://${hostPort(socks.host, socks.port)}`);
      agents.set(key, agent);
    }
    return agent;
  };
  return {
    async request(request) {
      const { request: send } = await import("undici");
      try {
        const dispatcher = await agentFor(request);
        const asked = {
          method: (request.method ?? "GET") as "GET",
          headersTimeout: request.headTimeoutMs ?? 30_000,
          bodyTimeout: request.bodyTimeoutMs ?? 30_000,
          ...(request.headers === undefined ? {} : { headers: request.headers as Record<string, string | string[]> }),
          ...(request.body === undefined ? {} : { body: request.body }),
          ...(request.signal === undefined ? {} : { signal: request.signal }),
        };
        const path = dottedPath(request.url);
        const answer =
          path === undefined
            ? await send(request.url, { dispatcher, ...asked })
            : await dispatcher.request({ origin: new URL(request.url).origin, path, ...asked });
        return {
          status: answer.statusCode,
          statusText: answer.statusText,
          headers: answer.headers,
          body: answer.body,
          text: (maxBytes = 64 << 20) => readText(answer.body, maxBytes),
        };
      } catch (error) {
        if (request.signal?.aborted) throw request.signal.reason;
        throw wrap(error, `${request.method ?? "GET"} ${whereOf(request)}`);
      }
    },
    serve: (on, handle) =>
      new Promise((resolve, reject) => {
        const server = createServer({
          noDelay: true,
          headersTimeout: 10_000,
          requestTimeout: 0,
          keepAliveTimeout: 120_000,
          // As Go's servers: filters and lists of tags in a query may be long.
          maxHeaderSize: 1 << 20,
          // HTTP/1.0 clients need none; what a missing one means under 1.1 is for the dialect to say.
          requireHostHeader: false,
        });
        server.on("request", (request, response) => {
          void Promise.resolve()
            .then(() => handle(request, response))
            .catch((error: unknown) => {
              if (response.headersSent) response.destroy();
              else
                response
                  .writeHead(500, { "content-type": "text/plain" })
                  .end(String(error instanceof Error ? error.message : error));
            });
        });
        server.on("clientError", (error, socket) => answerUnread(error, socket as Socket));
        if (background) server.unref().on("connection", (socket) => void socket.unref());
        const where = "path" in on ? on.path : hostPort(on.host, on.port);
        let cleared = false;
        server.on("error", (error: NodeJS.ErrnoException) => {
          const failed = (): void => reject(wrap(error, `listening for HTTP on ${where}`));
          if (!("path" in on) || error.code !== "EADDRINUSE" || cleared) return failed();
          cleared = true;
          // A killed program leaves its socket file behind; one that still listens there answers.
          clearDeadSocket(on.path).then((dead) => (dead ? server.listen(on.path, listening) : failed()), failed);
        });
        const listening = (): void => {
          const at = server.address() as AddressInfo | string;
          resolve({
            host: typeof at === "string" ? at : at.address,
            port: typeof at === "string" ? 0 : at.port,
            close: () =>
              new Promise((closed) => {
                server.close(() => closed());
                server.closeAllConnections();
              }),
          });
        };
        if ("path" in on) server.listen(on.path, listening);
        else server.listen(on.port, on.host, listening);
      }),
    async close() {
      await Promise.all([...agents.values()].map((agent) => agent.destroy()));
      agents.clear();
    },
  };
}

/** Removes a unix socket's file where nobody listens on it any more; false = it is alive, or no socket. */
async function clearDeadSocket(path: string): Promise<boolean> {
  if (!(await lstat(path)).isSocket()) return false;
  const dead = await new Promise<boolean>((resolve) => {
    const socket = connect({ path });
    socket.once("connect", () => {
      socket.destroy();
      resolve(false);
    });
    socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code === "ECONNREFUSED"));
  });
  if (dead) await rm(path, { force: true });
  return dead;
}

/** Reads a stream as UTF-8 text up to a limit. */
async function readText(body: Readable, maxBytes: number): Promise<string> {
  const { TrilithError } = await import("./error.ts");
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxBytes) throw new TrilithError("too-large", `the answer is larger than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
