// Docker's event stream: lines of JSON, read as bells that say which container to look at again.
import { TrilithError } from "../../base/error.ts";

/** What a line of the stream means here. */
export type Happening =
  /** It began to run. */
  | { readonly what: "started"; readonly id: string }
  /** Something about it is different, if it runs. */
  | { readonly what: "changed"; readonly id: string }
  /** Its process ended. */
  | { readonly what: "died"; readonly id: string; readonly name: string; readonly exitCode: number }
  /** A signal was sent to it. */
  | { readonly what: "signalled"; readonly id: string; readonly signal: number };

/** A line longer than this is no event of Docker's. */
const LINE_MAX_CHARACTERS = 1 << 20;

type Json = Readonly<Record<string, unknown>>;

function object(value: unknown): Json {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : {};
}

/** Reads one event; undefined where it is none of ours. */
export function readEvent(raw: unknown): Happening | undefined {
  const event = object(raw);
  const actor = object(event["Actor"]);
  const attributes = object(actor["Attributes"]);
  // Engines before API 1.22 say it in lower case.
  const action = String(event["Action"] ?? event["status"] ?? "");
  const ofNetwork = event["Type"] === "network";
  const id = ofNetwork ? attributes["container"] : (actor["ID"] ?? event["id"]);
  if (typeof id !== "string" || id === "" || action === "") return undefined;
  if (ofNetwork) return action === "connect" || action === "disconnect" ? { what: "changed", id } : undefined;
  if (event["Type"] !== undefined && event["Type"] !== "container") return undefined;
  switch (action) {
    case "die":
    case "died": {
      const exitCode = Number(attributes["exitCode"] ?? attributes["containerExitCode"] ?? 0);
      const name = attributes["name"];
      return {
        what: "died",
        id,
        name: typeof name === "string" ? name : "",
        exitCode: Number.isInteger(exitCode) ? exitCode : 0,
      };
    }
    case "kill": {
      const signal = Number(attributes["signal"] ?? Number.NaN);
      return Number.isInteger(signal) ? { what: "signalled", id, signal } : undefined;
    }
    default:
      return { what: action === "start" ? "started" : "changed", id };
  }
}

/** Reads a stream of events as they come. @throws TrilithError `damaged` for lines that are no JSON object: whoever speaks there is not Docker */
export async function* readEvents(
  stream: AsyncIterable<Uint8Array | string>,
  where: string,
): AsyncGenerator<Happening, void, void> {
  const decoder = new TextDecoder();
  let rest = "";
  const junk = (line: string): TrilithError =>
    new TrilithError(
      "damaged",
      `${where}: the event stream holds what is no event: ${JSON.stringify(line.slice(0, 80))}`,
    );
  for await (const chunk of stream) {
    rest += typeof chunk === "string" ? chunk : decoder.decode(chunk, { stream: true });
    for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
      const line = rest.slice(0, end).trim();
      rest = rest.slice(end + 1);
      if (line === "") continue;
      let raw: unknown;
      try {
        raw = JSON.parse(line);
      } catch {
        throw junk(line);
      }
      if (typeof raw !== "object" || raw === null || Array.isArray(raw)) throw junk(line);
      const happening = readEvent(raw);
      if (happening !== undefined) yield happening;
    }
    if (rest.length > LINE_MAX_CHARACTERS) throw junk(rest);
  }
}
