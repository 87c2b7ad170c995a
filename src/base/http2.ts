// HTTP/2 as far as it is needed: a PING over a connection that stands.
import { wrap } from "./error.ts";
import type { Socket } from "./net.ts";

/**
 * Speaks HTTP/2 over a connected socket (for TLS: with "h2" negotiated) and resolves when the other side has answered a PING
 * [RFC9113-6.7]. The socket is closed in any case. Rejects with the signal's reason, or with what broke the session.
 */
export async function pingHttp2(socket: Socket, signal?: AbortSignal): Promise<void> {
  const { connect } = await import("node:http2");
  await new Promise<void>((resolve, reject) => {
    if (signal?.aborted) {
      socket.destroy();
      return reject(signal.reason);
    }
    const session = connect("http://ping", { createConnection: () => socket });
    const end = (error?: Error): void => {
      signal?.removeEventListener("abort", onAbort);
      session.removeAllListeners();
      session.on("error", () => {});
      socket.on("error", () => {});
      session.destroy();
      socket.destroy();
      if (error === undefined) resolve();
      else reject(error);
    };
    const onAbort = (): void => end(signal?.reason as Error);
    signal?.addEventListener("abort", onAbort, { once: true });
    session.once("error", (error) => end(wrap(error, "HTTP/2")));
    session.once("close", () => end(new Error("the connection was closed")));
    // A server that follows the protocol begins with its settings [RFC9113-3.4]; whoever does not speak it never gets here.
    session.once("connect", () => {
      session.ping((error) => end(error ?? undefined));
    });
  });
}
