// How far a host is: the time it takes to say yes or no to a connection.
import type { Clock } from "./clock.ts";
import { TrilithError } from "./error.ts";
import type { Net } from "./net.ts";

/**
 * Milliseconds until `to` takes a TCP connection, or (`evenRefused`) refuses it: either is one round trip. Undefined where it says nothing
 * within `timeoutMs`, or cannot be reached at all. Rejects only with the signal's reason, when aborted.
 */
export async function roundTripMs(
  { net, clock }: { readonly net: Pick<Net, "connect">; readonly clock: Pick<Clock, "monotonic" | "after"> },
  to: { readonly host: string; readonly port: number },
  { timeoutMs, evenRefused }: { readonly timeoutMs: number; readonly evenRefused: boolean },
  signal: AbortSignal,
): Promise<number | undefined> {
  const late = new AbortController();
  const timer = clock.after(timeoutMs, () => late.abort(new TrilithError("timeout", "no answer")));
  const before = clock.monotonic();
  try {
    const socket = await net.connect(to, AbortSignal.any([late.signal, signal]));
    const after = clock.monotonic();
    socket.destroy();
    return after - before;
  } catch (error) {
    const after = clock.monotonic();
    signal.throwIfAborted();
    return evenRefused && isRefused(error) ? after - before : undefined;
  } finally {
    timer.cancel();
  }
}

function isRefused(error: unknown): boolean {
  for (let at: unknown = error; at instanceof Error; at = at.cause)
    if ((at as { readonly code?: unknown }).code === "ECONNREFUSED") return true;
  return false;
}
