// Listings of a tailnet where nothing happens, beside a directory where much does: told again each time, and nothing is left behind.
import { expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { nodeChange, serviceChange, testDirectory } from "../../../test/support/directory.ts";
import { listingsOf } from "./listings.ts";
import type { Listing, Peer } from "./peer.ts";

/** A promise that counts who waits for it. */
let waiters = 0;
class Counting<T> extends Promise<T> {
  // biome-ignore lint/suspicious/noThenProperty: it is a promise
  override then<A = T, B = never>(
    done?: ((value: T) => A | PromiseLike<A>) | null,
    failed?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    waiters++;
    return super.then(done, failed);
  }
}

it("come again with each change of the directory, and a silent tailnet is waited for once", async () => {
  const directory = testDirectory(fakeClock());
  await directory.write([nodeChange("n1", "192.0.2.1")]);
  const stop = new AbortController();
  const listing = { services: [], hosts: [] } as unknown as Listing;
  const peer: Pick<Peer, "follow"> = {
    follow: (signal) => ({
      [Symbol.asyncIterator]() {
        let told = false;
        return {
          next: () =>
            new Counting<IteratorResult<Listing>>((resolve, reject) => {
              signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
              if (!told) resolve({ done: false, value: listing });
              told = true;
            }),
        };
      },
    }),
  };
  const got = listingsOf(peer, directory, stop.signal)[Symbol.asyncIterator]();
  expect((await got.next()).value).toBe(listing);
  for (let i = 0; i < 50; i++) {
    const next = got.next();
    await directory.write([serviceChange("n1", `w${i}`, "web", { port: 1000 + i })]);
    expect((await next).value).toBe(listing);
  }
  expect(waiters).toBeLessThan(10);
  const last = got.next();
  stop.abort(new Error("over"));
  expect((await last).done).toBe(true);
  expect(directory.waiting).toBe(0);
});

/** Tells one listing, then nothing until `end`. */
function toldOnce(): { readonly peer: Pick<Peer, "follow">; readonly listing: Listing; end(): void } {
  const listing = { services: [], hosts: [] } as unknown as Listing;
  let end = (): void => {};
  const over = new Promise<void>((done) => {
    end = done;
  });
  return {
    ...{ listing, end: () => end() },
    peer: {
      async *follow() {
        yield listing;
        await over;
      },
    },
  };
}

it("come again where only a host is new: no service of it has changed", async () => {
  const directory = testDirectory(fakeClock());
  const stop = new AbortController();
  const { peer, listing, end } = toldOnce();
  const got = listingsOf(peer, directory, stop.signal)[Symbol.asyncIterator]();
  expect((await got.next()).value).toBe(listing);
  for (const name of ["n1", "n2"]) {
    const next = got.next();
    const services = directory.view().at("services");
    await directory.write([nodeChange(name, "192.0.2.1")]);
    expect(directory.view().at("services")).toBe(services);
    expect((await next).value).toBe(listing);
  }
  stop.abort(new Error("over"));
  end();
  expect((await got.next()).done).toBe(true);
});

it("end where the peer has no more to tell, without any abort, and wait for nothing any longer", async () => {
  const directory = testDirectory(fakeClock());
  const stop = new AbortController();
  const { peer, listing, end } = toldOnce();
  const got = listingsOf(peer, directory, stop.signal)[Symbol.asyncIterator]();
  expect((await got.next()).value).toBe(listing);
  const last = got.next();
  end();
  expect(await last).toEqual({ done: true, value: undefined });
  expect([directory.waiting, stop.signal.aborted]).toEqual([0, false]);
});
