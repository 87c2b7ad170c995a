// A member's place when the original that leads comes to its end: seen at once where it can be.
import { describe, expect, it } from "vitest";
import { type FakeClock, fakeClock } from "../../../test/simulated/clock.ts";
import { TrilithError } from "../../base/error.ts";
import type { Http } from "../../base/http.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import type { Asker, Reply } from "./ask.ts";
import { Follower } from "./follower.ts";
import { Member } from "./member.ts";
import { PORT, type StreamedService } from "./wire.ts";

const OWN: StreamedService = {
  name: "web",
  at: { host: "100.64.0.1", port: 8080 },
  labels: {},
  tags: [],
  also: [],
  health: "passing",
};

/** A host on which an original leads, until it is told to end. */
class Host {
  readonly clock: FakeClock = fakeClock();
  python = false;
  leads = true;
  pings = 0;
  holds = 0;
  /** What keeps a connection to the leader open. */
  readonly #held = new Set<() => void>();
  readonly http = {
    serve: async ({ host, port }: { host: string; port: number }) => {
      if (port === PORT && this.leads) throw new TrilithError("address-in-use", `${host}:${port} is taken`);
      return { host, port: port === 0 ? 40_000 : port, close: async () => {} };
    },
  } as unknown as Http;
  readonly asker: Asker = {
    services: async () => this.#answer({ services: [OWN], dropped: [], python: this.python }),
    ping: async () => {
      this.pings++;
      return this.#answer({ python: this.python });
    },
    addDelegate: async () => this.#answer({}),
    follow: async () => "refused",
    hold: (_to, signal) =>
      new Promise((resolve) => {
        this.holds++;
        const end = (): void => {
          this.#held.delete(end);
          resolve();
        };
        this.#held.add(end);
        signal.addEventListener("abort", end, { once: true });
      }),
  };

  get held(): number {
    return this.#held.size;
  }

  /** Ends every connection that is held, as a server does that dies. */
  drop(): void {
    for (const end of [...this.#held]) end();
  }

  member(): Member {
    const { clock, http, asker } = this;
    return new Member(
      { clock, random: systemRandom, http, log: silentLog, asker },
      () => [OWN],
      () => {},
    );
  }

  #answer<T>(whole: T): Reply<T> {
    return this.leads ? { kind: "ok", ...whole } : { kind: "refused", text: "nobody listens" };
  }
}

const PLACE = { speaking: "100.64.0.1", tun: true };

async function delegate(host: Host): Promise<Member> {
  const member = host.member();
  member.place(PLACE);
  await host.clock.advance(1_000);
  expect(member.role).toMatchObject({ role: "delegate", leader: "original" });
  return member;
}

describe("the end of an original that leads", () => {
  it("is seen without waiting for the next ping where it was Go's", async () => {
    const host = new Host();
    const member = await delegate(host);
    expect(host.held).toBe(1);
    host.leads = false;
    host.drop();
    // No time passes: what leads next is who asked for the port first.
    await host.clock.settle();
    expect(member.role).toMatchObject({ role: "leader" });
    await member.stop();
    expect(host.held).toBe(0);
    expect(host.clock.timers).toBe(0);
  });

  it("is seen at once for the next one that leads, too", async () => {
    const host = new Host();
    const member = await delegate(host);
    host.drop();
    await host.clock.settle();
    expect(member.role).toMatchObject({ role: "delegate", leader: "original" });
    expect(host.held).toBe(1);
    await host.clock.advance(1_000);
    host.leads = false;
    host.drop();
    await host.clock.settle();
    expect(member.role).toMatchObject({ role: "leader" });
    await member.stop();
  });

  it("is found by the pings where it was Python's, whose server would wait for a connection that says nothing", async () => {
    const host = new Host();
    host.python = true;
    const member = await delegate(host);
    expect(host.holds).toBe(0);
    host.leads = false;
    await host.clock.settle();
    expect(member.role).toMatchObject({ role: "delegate" });
    await host.clock.advance(3_000);
    expect(member.role).toMatchObject({ role: "leader" });
    await member.stop();
  });
});

it("leads nobody at an address that went while its port was being opened there", async () => {
  const host = new Host();
  let open = (): void => {};
  const opening = new Promise<void>((resolve) => {
    open = resolve;
  });
  let closed = 0;
  const serve = async (at: { readonly host: string; readonly port: number }) => {
    await opening;
    return { ...at, close: async () => void closed++ };
  };
  const { clock, asker } = host;
  const http = { serve } as unknown as Http;
  const member = new Member(
    { clock, random: systemRandom, http, log: silentLog, asker },
    () => [OWN],
    () => {},
  );
  member.place(PLACE);
  await clock.settle();
  member.place(undefined);
  open();
  await clock.settle();
  expect([member.role, closed]).toEqual([{ role: "none", text: "no address in the tailnet" }, 1]);
  await member.stop();
});

describe("who keeps up with another host", () => {
  const following = (host: Host, asker: Asker = host.asker): Follower =>
    new Follower({
      asker,
      clock: host.clock,
      random: systemRandom,
      to: { host: PLACE.speaking, port: PORT },
      pollMs: 10_000,
      timeoutMs: 2_000,
      beatMs: 5_000,
      changed: () => {},
    });

  it("asks again when Go's server ends, without waiting for its turn", async () => {
    const host = new Host();
    const follower = following(host);
    follower.start();
    await host.clock.settle();
    expect(follower.state).toMatchObject({ kind: "plain", services: [{ name: "web" }] });
    host.leads = false;
    host.drop();
    await host.clock.settle();
    expect(follower.state.failing).toMatchObject({ kind: "refused" });
    // Another leads: it is asked soon, and held on to.
    host.leads = true;
    await host.clock.advance(1_000);
    expect(follower.state.failing).toBeUndefined();
    expect(host.held).toBe(1);
    await follower.stop();
    expect(host.held).toBe(0);
    expect(host.clock.timers).toBe(0);
  });

  it("is not in doubt about a stream that began while a question from before it got no answer", async () => {
    const host = new Host();
    let lost = (): void => {};
    const asked = new Promise<void>((resolve) => {
      lost = resolve;
    });
    let isThere = false;
    const asker: Asker = {
      ...host.asker,
      services: async (_to, timeoutMs) => {
        if (timeoutMs === 1_000) await asked;
        else if (isThere) return { kind: "ok", mark: "m", services: [OWN], dropped: [], python: false };
        return { kind: "silent", text: "no answer" };
      },
      follow: async (_to, _beatMs, signal, line) => {
        line({ mark: "m", leads: true, services: [OWN], delegates: [], dropped: [] });
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        return "ended";
      },
    };
    const follower = following(host, asker);
    follower.start();
    await host.clock.settle();
    expect(follower.state.failing).toMatchObject({ kind: "silent" });
    const fresh = follower.fresh(1_000);
    isThere = true;
    await host.clock.advance(1_000);
    expect(follower.state).toMatchObject({ kind: "trilith", services: [OWN] });
    lost();
    expect(await fresh).toEqual([OWN]);
    expect(follower.state.failing).toBeUndefined();
    await follower.stop();
  });

  it("holds no connection to Python's", async () => {
    const host = new Host();
    host.python = true;
    const follower = following(host);
    follower.start();
    await host.clock.advance(25_000);
    expect(host.holds).toBe(0);
    await follower.stop();
  });
});
