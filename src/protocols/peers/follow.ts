// Listening to one other host: asks for its own with a proof of the key, and yields its lines until the stream ends.
import { TrilithError } from "../../base/error.ts";
import type { HttpResponse } from "../../base/http.ts";
import type { Ground } from "../../contracts/ground.ts";
import { PEERS_PATH, type PeerLine, readPeerLine } from "./lines.ts";
import { createSeal, proofOf, type Seal } from "./secret.ts";

export interface FollowOptions extends Pick<Ground, "http" | "random"> {
  /** The key as it is now. */
  readonly key: () => string | undefined;
  /** Where this host shows its own; 0 = nowhere. */
  readonly port: number;
}

/** A host that does not answer within so long is not there. */
const ANSWER_MS = 2_000;
/** A line longer than this is none of ours. */
const LONGEST_LINE = 64 << 20;

/**
 * The lines of one host, until the stream ends or is aborted.
 * @throws TrilithError `not-allowed` (the key), `unavailable`, `timeout`, `damaged`
 */
export async function* linesOf(place: string, options: FollowOptions, signal: AbortSignal): AsyncGenerator<PeerLine> {
  const { answer, seal } = await open(place, options, signal);
  try {
    for await (const line of textLines(answer)) {
      const text = seal.open(line);
      if (text === undefined)
        throw new TrilithError("not-allowed", `${place} does not have this agent's key for peers (peers_key)`);
      yield readPeerLine(text);
    }
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    answer.body.destroy();
  }
}

async function open(
  place: string,
  { http, random, key: keyNow, port }: FollowOptions,
  signal: AbortSignal,
): Promise<{ readonly answer: HttpResponse; readonly seal: Seal }> {
  const key = keyNow();
  const ask = async (path: string, headers: Readonly<Record<string, string>> = {}): Promise<HttpResponse> => {
    const answer = await http.request({
      url: `http://${place}${path}`,
      headers,
      signal,
      headTimeoutMs: ANSWER_MS,
      bodyTimeoutMs: 0,
    });
    if (answer.status === 200) return answer;
    throw new TrilithError(
      answer.status === 403 ? "not-allowed" : "unavailable",
      `${place}: ${await refusalOf(answer)}`,
    );
  };
  const nonce = key === undefined ? undefined : nonceOf(place, await (await ask(`${PEERS_PATH}nonce`)).text(4096));
  const mine = Buffer.from(random.bytes(18)).toString("base64url");
  const query = new URLSearchParams({
    ...(port === 0 ? {} : { port: String(port) }),
    ...(nonce === undefined ? {} : { nonce, mine }),
  });
  const target = `${PEERS_PATH}own?${query}`;
  const answer = await ask(
    target,
    key === undefined || nonce === undefined ? {} : { authorization: `Trilith-Peer ${proofOf(key, nonce, target)}` },
  );
  if (!String(answer.headers["content-type"] ?? "").startsWith("application/x-ndjson")) {
    answer.body.destroy();
    throw new TrilithError("unavailable", `${place} is no Trilith agent`);
  }
  return { answer, seal: createSeal(key, [nonce ?? "", nonce === undefined ? "" : mine]) };
}

function nonceOf(place: string, text: string): string {
  let nonce: unknown;
  let keyed: unknown;
  try {
    ({ key: keyed, nonce } = JSON.parse(text) as Record<string, unknown>);
  } catch {
    throw new TrilithError("unavailable", `${place} is no Trilith agent`);
  }
  if (keyed === false)
    throw new TrilithError("not-allowed", `${place} has no key for peers: give it this agent's (peers_key)`);
  if (typeof nonce !== "string" || nonce.length < 16)
    throw new TrilithError("unavailable", `${place} is no Trilith agent`);
  return nonce;
}

async function refusalOf(answer: HttpResponse): Promise<string> {
  const text = await answer.text(65_536);
  try {
    return (JSON.parse(text) as { error: { message: string } }).error.message;
  } catch {
    return `status ${answer.status}`;
  }
}

async function* textLines(answer: HttpResponse): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of answer.body as AsyncIterable<Uint8Array>) {
    const pieces = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = pieces.pop() ?? "";
    yield* pieces;
    if (rest.length > LONGEST_LINE) throw new TrilithError("too-large", "a line of the stream has no end");
  }
}
