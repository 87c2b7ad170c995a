// What a peer tells, once more whenever the directory knows more or fewer hosts and services than when it was told last.
import { Bell } from "../../base/bells.ts";
import type { Directory } from "../../contracts/directory.ts";
import type { Listing, Peer } from "./peer.ts";

/** The newest listing after each change of it and of the directory, until the signal; nothing before there is one. */
export async function* listingsOf(
  peer: Pick<Peer, "follow">,
  directory: Pick<Directory, "view" | "changed">,
  signal: AbortSignal,
): AsyncIterable<Listing> {
  const over = new AbortController();
  const end = (): void => over.abort(signal.reason);
  signal.addEventListener("abort", end, { once: true });
  if (signal.aborted) end();
  // Each is waited for by itself: a race would leave something behind at those that move seldom, with every move of the others.
  const bell = new Bell();
  let latest: Listing | undefined;
  let ended = false;
  let trouble: { readonly error: unknown } | undefined;
  const follow = async (work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      trouble ??= { error };
    }
    bell.ring();
  };
  const following = [
    follow(async () => {
      for await (const listing of peer.follow(over.signal)) {
        latest = listing;
        bell.ring();
      }
      ended = true;
    }),
    ...(["nodes", "services"] as const).map((scope) =>
      follow(async () => {
        for (let at = directory.view().at(scope); ; bell.ring()) at = await directory.changed(scope, at, over.signal);
      }),
    ),
  ];
  try {
    for (;;) {
      await bell.heard();
      if (trouble !== undefined) throw trouble.error;
      if (ended) return;
      if (latest !== undefined) yield latest;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener("abort", end);
    over.abort();
    await Promise.all(following);
  }
}
