// Waiting for a reader of a stream that does not keep up.
import type { ServerResponse } from "./http.ts";

/** Resolves when the response takes more, or the signal is aborted; never rejects, leaves no listener behind. */
export function drained(response: ServerResponse, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const done = (): void => {
      response.off("drain", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    response.once("drain", done);
    signal.addEventListener("abort", done, { once: true });
  });
}
