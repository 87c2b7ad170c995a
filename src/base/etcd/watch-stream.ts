// A watch of etcd as messages in order: what is silent for too long is given up, and a slow reader holds up the stream.
import type { ClientDuplexStream, ServiceError } from "@grpc/grpc-js";
import type { Clock } from "../clock.ts";
import type { ClientTiming } from "./access.ts";
import { type EtcdError, sortError, UNAVAILABLE } from "./error.ts";
import type { Methods } from "./proto.ts";

/** A watch stream as messages in order. */
export interface Stream {
  readonly url: string;
  send(message: Methods["watch"]["request"]): void;
  /** The next message; undefined after `cancel`. @throws EtcdError when the stream breaks */
  next(): Promise<Methods["watch"]["response"] | undefined>;
  cancel(): void;
}

/** Messages that wait for the reader, at most, before the stream is held up. */
const MOST_WAITING = 64;

/** The stream behind an open watch; it is asked for a sign of life where it falls silent, and given up where none comes. */
export function watchStream(
  raw: ClientDuplexStream<Methods["watch"]["request"], Methods["watch"]["response"]>,
  url: string,
  clock: Clock,
  timing: ClientTiming,
): Stream {
  const waiting: Methods["watch"]["response"][] = [];
  let end: { readonly error: EtcdError | undefined } | undefined;
  let wake: (() => void) | undefined;
  let heard = clock.monotonic();
  let asked = false;
  const finish = (error: EtcdError | undefined): void => {
    end ??= { error };
    timer.cancel();
    wake?.();
  };
  const listen = (): void => {
    const silence = waiting.length > 0 ? 0 : clock.monotonic() - heard;
    if (silence >= timing.silentMs) {
      // A cut cable or a stopped process says nothing by itself.
      finish(
        sortError({ code: UNAVAILABLE, details: `no sign of life for ${timing.silentMs} ms` }, `etcd watch at ${url}`),
      );
      raw.cancel();
      return;
    }
    if (silence >= timing.askMs && !asked) {
      asked = true;
      raw.write({ progressRequest: {} });
    }
    timer = clock.after((asked ? timing.silentMs : timing.askMs) - silence, listen);
  };
  let timer = clock.after(timing.askMs, listen);
  raw.on("data", (message: Methods["watch"]["response"]) => {
    heard = clock.monotonic();
    asked = false;
    waiting.push(message);
    // A reader that is slow holds up the stream, not the memory.
    if (waiting.length >= MOST_WAITING) raw.pause();
    wake?.();
  });
  raw.on("error", (error: ServiceError) => finish(sortError(error, `etcd watch at ${url}`)));
  raw.on("end", () => finish(sortError({ code: UNAVAILABLE, details: "the stream ended" }, `etcd watch at ${url}`)));
  return {
    url,
    send: (message) => void raw.write(message),
    async next() {
      for (;;) {
        const message = waiting.shift();
        if (message !== undefined) {
          if (waiting.length === 0) {
            // Time spent by a slow reader is not the server's silence.
            heard = clock.monotonic();
            if (raw.isPaused()) raw.resume();
          }
          return message;
        }
        if (end !== undefined) {
          if (end.error !== undefined) throw end.error;
          return undefined;
        }
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        wake = undefined;
      }
    },
    cancel() {
      waiting.length = 0;
      finish(undefined);
      raw.cancel();
    },
  };
}
