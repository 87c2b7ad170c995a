// A Trilith agent as the server of a client host: its directory as a stream, resumed where it broke off.
import { TrilithError } from "../../base/error.ts";
import type { HttpResponse } from "../../base/http.ts";
import type { Servers } from "../../base/servers.ts";
import type { Written } from "../../contracts/directory.ts";
import { commitText, JOIN_PREFIX, JOIN_VERSION, readLine } from "../../contracts/join.ts";
import type { Batch, Commit } from "../../contracts/storage.ts";
import type { Index } from "../../model/record.ts";

/** A line longer than this is no line of ours. */
const LONGEST_LINE = 256 << 20;

/** Where the last stream broke off. */
export interface Position {
  line: string;
  index: Index;
  /** True where the server goes on with that line: what it does not tell any more was removed there. */
  resumed: boolean;
  /** The server's node, and those that it has its directory from. */
  via: readonly string[];
}

export interface StreamOptions {
  /** The server is to say something at least so often. */
  readonly beatMs: number;
  /** This host's own. */
  readonly datacenter: string;
  readonly node: string;
  readonly nowMs: () => number;
}

/** @throws TrilithError `conflict` where a server is in another datacenter than the host that joins it */
export function mustBeHere(theirs: string, own: string, url: string): void {
  if (theirs.toLowerCase() !== own.toLowerCase())
    throw new TrilithError(
      "conflict",
      `${url} is in datacenter "${theirs}", this host in "${own}": name the same datacenter here, or join another agent`,
    );
}

/** @throws TrilithError `conflict` where the directory would come to this host from itself */
function mustNotBeHere(path: readonly string[], own: string, url: string): void {
  const at = path.findIndex((node) => node.toLowerCase() === own.toLowerCase());
  if (at < 0) return;
  throw new TrilithError(
    "conflict",
    at === 0
      ? `${url} is node "${own}": this host itself, or another one of the same name; join an agent that has a directory of its own`
      : `${url} has its directory from this host ("${path.join('" ← "')}"): agents that join each other have none; one of them has to be a server`,
  );
}

/** Thrown where the server is no Trilith agent that can be joined. */
export class NotTrilith extends Error {}

/**
 * The batches of one connection, until it breaks. Ends by throwing. @throws NotTrilith, TrilithError `unavailable`, `not-allowed`
 */
export async function* streamOf(
  servers: Servers,
  url: string,
  position: Position,
  { beatMs, datacenter, node, nowMs }: StreamOptions,
  signal: AbortSignal,
): AsyncGenerator<Batch, never> {
  let fresh = true;
  let greeted = false;
  const beat = Math.max(200, Math.round(beatMs));
  const answer = await servers.askOne(url, {
    path: `${JOIN_PREFIX}follow?beatMs=${beat}&after=${position.index}&line=${encodeURIComponent(position.line)}`,
    signal,
    // A server that has said nothing for so long is not there.
    bodyTimeoutMs: beat * 3,
  });
  if (answer.status === 403) throw new TrilithError("not-allowed", `${url}: ${await errorText(answer)}`);
  if (answer.status !== 200 || !String(answer.headers["content-type"] ?? "").startsWith("application/x-ndjson")) {
    await answer.text();
    throw new NotTrilith(`${url} is not a Trilith agent`);
  }
  try {
    for await (const text of linesOf(answer)) {
      const line = readLine(text);
      if (line.kind === "hello") {
        if (line.version !== JOIN_VERSION) throw new NotTrilith(`${url} speaks version ${line.version}`);
        mustBeHere(line.datacenter, datacenter, url);
        mustNotBeHere([line.node, ...(line.via ?? [])], node, url);
        // A server that is not ready greets again.
        if (!greeted) position.resumed = position.line === line.line;
        greeted = true;
        position.via = [line.node, ...(line.via ?? [])];
        position.line = line.line;
      } else if (line.kind === "still") {
        // The server's own store may be away: then its word is not fresh either.
        if ((line.ageMs === undefined) === fresh) continue;
        fresh = line.ageMs === undefined;
        yield { kind: "reachable", reachable: fresh, atMs: nowMs() - (line.ageMs ?? 0) };
      } else {
        yield line;
        if (line.kind !== "delta" && !line.complete) continue;
        position.index = line.index;
        position.resumed = true;
      }
    }
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    if (error instanceof TrilithError || error instanceof NotTrilith) throw error;
    throw new TrilithError("unavailable", `${url}: the stream broke off: ${(error as Error).message}`, error);
  } finally {
    answer.body.destroy();
  }
  throw new TrilithError("unavailable", `${url}: the stream ended`);
}

async function* linesOf(answer: HttpResponse): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let pieces: string[] = [];
  let size = 0;
  for await (const chunk of answer.body as AsyncIterable<Uint8Array>) {
    let text = decoder.decode(chunk, { stream: true });
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
      pieces.push(text.slice(0, end));
      yield pieces.join("");
      pieces = [];
      size = 0;
      text = text.slice(end + 1);
    }
    if (text !== "") pieces.push(text);
    size += text.length;
    if (size > LONGEST_LINE) throw new TrilithError("too-large", "a line of the stream has no end");
  }
}

async function errorText(answer: HttpResponse): Promise<string> {
  const text = await answer.text();
  try {
    return (JSON.parse(text) as { error: { message: string } }).error.message;
  } catch {
    return text.slice(0, 200);
  }
}

/** Sends a commit; the server evaluates it anew. */
export async function commitTo(servers: Servers, url: string, commit: Commit, signal: AbortSignal): Promise<Written> {
  let answer: HttpResponse;
  try {
    answer = await servers.askOne(url, {
      path: `${JOIN_PREFIX}commit`,
      method: "POST",
      headers: { "content-type": "application/json" },
      body: commitText(commit),
      signal,
    });
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    return { result: "unknown", cause: error as Error };
  }
  if (answer.status === 200) return JSON.parse(await answer.text()) as Written;
  const text = await answer.text();
  let told: { readonly code?: TrilithError["code"]; readonly message?: string } = {};
  try {
    told = (JSON.parse(text) as { error: typeof told }).error ?? {};
  } catch {
    told = { message: text.slice(0, 200) };
  }
  const error = new TrilithError(told.code ?? "unavailable", `${url}: ${told.message ?? `status ${answer.status}`}`);
  if (error.code === "timeout") return { result: "unknown", cause: error };
  throw error.code === "stopped" || error.code === "internal" ? new TrilithError("unavailable", error.message) : error;
}

/** The server's index as of a linearizable read made now. */
export async function latestOf(servers: Servers, url: string, signal?: AbortSignal): Promise<Index> {
  const answer = await servers.askOne(url, {
    path: `${JOIN_PREFIX}index`,
    ...(signal === undefined ? {} : { signal }),
  });
  const text = await answer.text();
  if (answer.status !== 200)
    throw new TrilithError("unavailable", `${url}: status ${answer.status}: ${text.slice(0, 200)}`);
  return (JSON.parse(text) as { index: Index }).index;
}

/** One sign of life. @throws TrilithError where the server does not take it */
export async function beatTo(
  servers: Servers,
  url: string,
  node: string,
  life: string,
  ttlMs: number,
  signal: AbortSignal,
): Promise<void> {
  const query = new URLSearchParams({ node, life, ttlMs: String(Math.max(1000, Math.round(ttlMs))) });
  const answer = await servers.askOne(url, {
    path: `${JOIN_PREFIX}alive?${query}`,
    method: "POST",
    headTimeoutMs: Math.max(500, ttlMs / 4),
    signal,
  });
  const text = await answer.text();
  if (answer.status !== 200)
    throw new TrilithError("unavailable", `${url}: status ${answer.status}: ${text.slice(0, 200)}`);
}
