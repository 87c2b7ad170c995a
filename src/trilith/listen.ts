// One HTTP server for the routes of all parts.
import type { Handler, Http } from "../base/http.ts";
import { explainListening } from "../base/listen-error.ts";
import { hostPort, type Listening } from "../base/net.ts";
import type { Route } from "../contracts/protocol.ts";
import type { Settings } from "../contracts/settings.ts";
import type { Undo } from "./undo.ts";

export interface ListenOptions {
  /** Looked at with each request; another list after a change. */
  readonly routes: () => readonly Route[];
  readonly settings: Pick<Settings, "httpPort" | "clientAddress">;
  readonly http: Http;
  /** Put before the routes. */
  readonly front: (own: Handler) => Handler;
  /** Filled in: "http" → "127.0.0.1:8500", the first; "http-more" → all others, ", " between them. */
  readonly listening: Map<string, string>;
  readonly undo: Undo;
}

/** Listens for HTTP at every address, or at none. @throws TrilithError `address-in-use`, `not-allowed` */
export async function listenForHttp({ routes, settings, http, front, listening, undo }: ListenOptions): Promise<void> {
  const handle = front(mount(routes));
  const all: string[] = [];
  const open: Listening[] = [];
  const closeAll = async (): Promise<void> => void (await Promise.all(open.map((server) => server.close())));
  try {
    for (const host of settings.clientAddress.split(/[\s,]+/)) {
      const at = host.startsWith("unix://")
        ? { path: host.slice("unix://".length) }
        : { host, port: settings.httpPort };
      const server = await http.serve(at, handle);
      open.push(server);
      all.push("path" in at ? host : hostPort(server.host, server.port));
    }
  } catch (error) {
    // A reload that tries again would find its own in the way.
    await closeAll();
    throw explainListening(error, settings.httpPort);
  }
  undo.push("HTTP", closeAll);
  const [first, ...more] = all;
  if (first !== undefined) listening.set("http", first);
  if (more.length > 0) listening.set("http-more", more.join(", "));
}

/** One handler for all routes; the longest prefix wins. */
function mount(routes: () => readonly Route[]): Handler {
  let of: readonly Route[] = [];
  let ordered = of;
  return (request, response) => {
    const now = routes();
    if (now !== of) ordered = now.toSorted((a, b) => b.prefix.length - a.prefix.length);
    of = now;
    const path = pathOf(request.url ?? "/");
    request.url = path;
    const route = ordered.find(({ prefix }) => path.startsWith(prefix));
    if (route !== undefined) return route.handle(request, response);
    response.writeHead(404, { "content-type": "text/plain" }).end(`there is nothing at ${path}\n`);
  };
}

/** The path of a request target, which may be a whole URL [RFC9112-3.2.2]. */
function pathOf(target: string): string {
  const authority = /^https?:\/\/[^/?]*/i.exec(target)?.[0];
  if (authority === undefined) return target;
  const path = target.slice(authority.length);
  return path.startsWith("/") ? path : `/${path}`;
}
