// What a client is told whose request cannot be read as HTTP: why, and for what scripts send most often, what would be right.
import type { Socket } from "node:net";

/** What node:http's parser reports. */
export interface ReadFault extends Error {
  readonly code?: string;
  /** Why, in the parser's words. */
  readonly reason?: string;
  /** The bytes that could not be read, where the parser has them. */
  readonly rawPacket?: Buffer;
}

const STATUS: Readonly<Record<string, string>> = {
  HPE_HEADER_OVERFLOW: "431 Request Header Fields Too Large",
  HPE_CHUNK_EXTENSIONS_OVERFLOW: "413 Payload Too Large",
  ERR_HTTP_REQUEST_TIMEOUT: "408 Request Timeout",
};
/** What a request line is refused with: a byte that belongs in no URL, or something else than HTTP's version behind a blank. */
const IN_THE_LINE: ReadonlySet<string> = new Set(["HPE_INVALID_URL", "HPE_INVALID_CONSTANT"]);
/** More of a request line is not looked at. */
const LINE_MAX = 16_384;

/** Answers and closes, unless an answer is on its way already or nobody is there to hear it. */
export function answerUnread(error: ReadFault, socket: Socket): void {
  const begun = socket as Socket & { readonly _httpMessage?: { readonly _headerSent?: boolean } | null };
  if (socket.writable && begun._httpMessage?._headerSent !== true) {
    const status = STATUS[error.code ?? ""] ?? "400 Bad Request";
    const body = `${status}: ${unreadText(error)}\n`;
    socket.write(
      `HTTP/1.1 ${status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
    );
  }
  socket.destroySoon();
}

/** Why, for people. */
function unreadText({ code, reason, message, rawPacket }: ReadFault): string {
  const line = IN_THE_LINE.has(code ?? "") ? requestLine(rawPacket) : undefined;
  const target = line === undefined ? undefined : /^[A-Z]+ (.+) HTTP\/[\d.]+$/.exec(line)?.[1];
  if (target === undefined) return reason ?? message;
  const encoded = encodeTarget(target);
  return encoded === target
    ? (reason ?? message)
    : `blanks and bytes beyond ASCII must be percent-encoded in a URL: ${encoded}`;
}

/** The first line, each byte one character. */
function requestLine(packet: Buffer | undefined): string | undefined {
  const end = packet?.indexOf("\n") ?? -1;
  return packet === undefined || end < 0 || end > LINE_MAX
    ? undefined
    : packet.toString("latin1", 0, end).replace(/\r$/, "");
}

function encodeTarget(target: string): string {
  return target.replace(
    /[^\x21-\x7e]/g,
    (each) => `%${each.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`,
  );
}
