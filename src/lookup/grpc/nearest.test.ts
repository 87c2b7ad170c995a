// Who is called of near and far gRPC servers: the nearest that can be reached, with real servers and channels of @grpc/grpc-js.
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import grpc from "@grpc/grpc-js";
import { afterEach, describe, expect, it, vi } from "vitest";
import { caller, WHO } from "../../../test/support/grpc.ts";
import { systemClock } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import type { NameEndpoint, NameSource, Names } from "./names.ts";
import { registerNearest } from "./nearest.ts";
import { groupedEndpoints, resolverClass } from "./resolver.ts";

const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

/** A server that tells its name; at a port of its own choice, or at that one. */
async function server(name: string, at = 0): Promise<number> {
  const made = new grpc.Server();
  made.addService(WHO, {
    who: (_: unknown, done: (error: null, answer: string) => void) => done(null, name),
  } as grpc.UntypedServiceImplementation);
  const port = await new Promise<number>((resolve, reject) =>
    made.bindAsync(`127.0.0.1:${at}`, grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  ends.push(() => made.forceShutdown());
  stops.set(port, () => made.forceShutdown());
  return port;
}
const stops = new Map<number, () => void>();
const stop = (port: number): void => stops.get(port)?.();

/** A port where nobody listens until somebody is started there. */
async function closedPort(): Promise<number> {
  const port = await server("nobody");
  stop(port);
  return port;
}

/** Takes connections; says nothing, or what somebody behind it says. */
async function door(behind?: number): Promise<{ readonly port: number; readonly open: ReadonlySet<Socket> }> {
  const open = new Set<Socket>();
  const listener = createServer((socket) => {
    open.add(socket.on("error", () => {}).on("close", () => open.delete(socket)));
    if (behind === undefined) return;
    const inner = connect(behind, "127.0.0.1").on("error", () => socket.destroy());
    socket.pipe(inner).pipe(socket);
  });
  await new Promise<void>((done) => listener.listen(0, "127.0.0.1", done));
  ends.push(() => {
    for (const socket of open) socket.destroy();
    listener.close();
  });
  return { port: (listener.address() as AddressInfo).port, open };
}

const at = (port: number, tier: 0 | 1 | 2, more: Partial<NameEndpoint> = {}): NameEndpoint => ({
  ...{ addresses: [{ host: "127.0.0.1", port }], weight: 1, labels: {}, tier },
  ...more,
});

const soon = (check: () => Promise<void>): Promise<void> => vi.waitFor(check, { timeout: 20_000 });

let schemes = 0;
/** A channel whose endpoints are told by `say`. */
function channel(options: grpc.ClientOptions = {}): {
  say(...endpoints: readonly NameEndpoint[]): void;
  who(times?: number): Promise<string[]>;
  call(deadlineMs?: number): Promise<string>;
  /** False before the first call, and while the channel is idle. */
  isFollowing(): boolean;
} {
  const scheme = `near${schemes++}`;
  let bell = (): void => {};
  let now: Names | undefined;
  let following = false;
  const source: NameSource = {
    name: "the test",
    reach: async () => {},
    async *follow(_, signal) {
      let last: Names | undefined;
      following = true;
      signal.addEventListener("abort", () => (following = false), { once: true });
      while (!signal.aborted) {
        if (now !== last && now !== undefined) {
          last = now;
          yield now;
        } else
          await new Promise<void>((done) => {
            bell = done;
            signal.addEventListener("abort", () => done(), { once: true });
          });
      }
    },
  };
  registerNearest(grpc, systemClock);
  grpc.experimental.registerResolver(
    scheme,
    resolverClass(grpc, { clock: systemClock, random: systemRandom }, () => source),
  );
  const client = caller(`${scheme}:web`, {
    "grpc.initial_reconnect_backoff_ms": 50,
    "grpc.min_reconnect_backoff_ms": 50,
    "grpc.max_reconnect_backoff_ms": 100,
    "grpc.use_local_subchannel_pool": 1,
    ...options,
  });
  ends.push(() => client.close());
  const call = (deadlineMs = 20_000): Promise<string> => client.call({ deadlineMs });
  return {
    call,
    isFollowing: () => following,
    say(...endpoints) {
      now = { endpoints, known: true, fresh: true };
      bell();
    },
    async who(times = 6) {
      const names: string[] = [];
      for (let i = 0; i < times; i++) names.push(await call());
      return [...new Set(names)].sort();
    },
  };
}

describe("calls go to the nearest", () => {
  it("in turn, and to others only where none of them is listed any more", async () => {
    const [a, b, zone, far] = [await server("a"), await server("b"), await server("zone"), await server("far")];
    const { say, who } = channel();
    say(at(far, 2), at(a, 0), at(zone, 1), at(b, 0));
    await soon(async () => expect(await who()).toEqual(["a", "b"]));
    for (let i = 0; i < 5; i++) expect(await who()).toEqual(["a", "b"]);
    say(at(far, 2), at(zone, 1));
    await soon(async () => expect(await who()).toEqual(["zone"]));
    say(at(far, 2));
    await soon(async () => expect(await who()).toEqual(["far"]));
    say(at(far, 2), at(b, 0));
    await soon(async () => expect(await who()).toEqual(["b"]));
  });

  it("to others where none of them can be reached, and to them again when one is back", async () => {
    const [near, further] = [await server("near"), await door(await server("further"))];
    const far = await door(await server("far"));
    const { say, who, call } = channel();
    const dead = await closedPort();
    say(at(far.port, 1), at(near, 0), at(dead, 0), at(further.port, 2));
    await soon(async () => expect(await who()).toEqual(["near"]));
    // Nobody is connected to for nothing.
    expect([far.open.size, further.open.size]).toEqual([0, 0]);
    stop(near);
    // The call that finds out may fail: it was under way.
    await soon(async () => expect(await who()).toEqual(["far"]));
    for (let i = 0; i < 5; i++) expect(await who()).toEqual(["far"]);
    await server("near", near);
    await soon(async () => expect(await call()).toBe("near"));
    expect(await who()).toEqual(["near"]);
    // The far one was left: whoever still wanted its connection would open it again.
    for (const socket of far.open) socket.destroy();
    await soon(async () => expect(far.open.size).toBe(0));
    await new Promise((done) => setTimeout(done, 300));
    expect([far.open.size, further.open.size]).toEqual([0, 0]);
  });

  it("and nobody waits once more for near ones that failed when another one comes that says nothing", async () => {
    const [refusing, silent] = [await closedPort(), await door()];
    const patient = { labels: { "trilith.try": "60s" } };
    const { say, who } = channel();
    const far = await server("far");
    say(at(far, 2, patient), at(refusing, 0, patient));
    expect(await who()).toEqual(["far"]);
    say(at(far, 2, patient), at(refusing, 0, patient), at(silent.port, 0, patient));
    await soon(async () => expect(silent.open.size).toBeGreaterThan(0));
    expect(await who()).toEqual(["far"]);
  });

  it("from the first call on to those that can be reached, also where the near ones say nothing", async () => {
    const far = await server("far");
    const [refusing, { port: silent }] = [await closedPort(), await door()];
    const first = channel();
    first.say(at(far, 2), at(refusing, 0));
    expect(await first.who()).toEqual(["far"]);
    const second = channel();
    second.say(at(far, 2, { labels: { "trilith.try": "50ms" } }), at(silent, 0));
    expect(await second.who()).toEqual(["far"]);
  });

  it("fail with the reason where nobody can be reached", async () => {
    const { say, call } = channel();
    say(at(await closedPort(), 0), at(await closedPort(), 2));
    await expect(call()).rejects.toMatchObject({
      code: grpc.status.UNAVAILABLE,
      details: expect.stringMatching(/No connection established.*ECONNREFUSED/),
    });
    // One that may answer yet is waited for.
    const waiting = channel();
    const patient = { labels: { "trilith.try": "20ms" } };
    waiting.say(at((await door()).port, 0, patient), at(await closedPort(), 2, patient));
    await expect(waiting.call(300)).rejects.toMatchObject({ code: grpc.status.DEADLINE_EXCEEDED });
    const nobody = channel();
    nobody.say();
    await expect(nobody.call()).rejects.toMatchObject({ details: expect.stringContaining("there is none") });
  });

  it("to those without a weight only where there is nobody else", async () => {
    const [spare, far] = [await server("spare"), await server("far")];
    const { say, who } = channel();
    say(at(spare, 0, { weight: 0 }), at(far, 2));
    expect(await who()).toEqual(["far"]);
    say(at(spare, 0, { weight: 0 }));
    await soon(async () => expect(await who()).toEqual(["spare"]));
  });

  it("also when a channel was idle meanwhile, and on one that was there when the policy was registered again", async () => {
    const [near, far] = [await server("near"), await server("far")];
    const { say, call, isFollowing } = channel({ "grpc.client_idle_timeout_ms": 1_000 });
    say(at(near, 0), at(far, 2));
    expect(await call()).toBe("near");
    await vi.waitFor(() => expect(isFollowing()).toBe(false), { timeout: 20_000 });
    expect(await call()).toBe("near");
    await vi.waitFor(() => expect(isFollowing()).toBe(false), { timeout: 20_000 });
    say(at(await closedPort(), 0), at(far, 2));
    expect(await call()).toBe("far");
    registerNearest(grpc, systemClock);
    say(at(near, 0), at(far, 2));
    await soon(async () => expect(await call()).toBe("near"));
  });

  it("by a channel's own service config to all, or as it says", async () => {
    const [near, far] = [await server("near"), await server("far")];
    const config = (policy: object): grpc.ClientOptions => ({
      "grpc.service_config": JSON.stringify({ loadBalancingConfig: [policy] }),
    });
    const all = channel(config({ round_robin: {} }));
    all.say(at(near, 0), at(far, 2));
    await soon(async () => expect(await all.who()).toEqual(["far", "near"]));
    const named = channel(config({ trilith_nearest: { childPolicy: [{ round_robin: {} }] } }));
    named.say(at(near, 0), at(far, 2));
    expect(await named.who()).toEqual(["near"]);
    const bare = channel(config({ trilith_nearest: {} }));
    bare.say(at(near, 0), at(far, 2), at(await server("also near"), 0));
    await soon(async () => expect(await bare.who()).toEqual(["also near", "near"]));
  });
});

describe("groups of endpoints", () => {
  const seen = (...endpoints: readonly NameEndpoint[]) => {
    const { grouped, config } = groupedEndpoints(endpoints);
    return [
      grouped.map(({ addresses: [first], group }) => `${(first as { port: number }).port}:${group}`).join(" "),
      config,
    ];
  };
  const turns = { childPolicy: [{ round_robin: {} }] };

  it("are tiers; each endpoint is in the best one, in one order everywhere", () => {
    expect(seen(at(443, 1), at(80, 2), at(9, 0), at(80, 1), at(80, 0, { weight: 0 }))).toEqual([
      "9:0 80:1 443:1",
      turns,
    ]);
    const { tier: _, ...unknown } = at(7, 0);
    expect(seen(unknown, { ...at(8, 0), addresses: [] })).toEqual(["7:2", turns]);
  });

  it("are what the instances' labels ask for", () => {
    const labels = { "trilith.locality": "off", "trilith.balance": "first", "trilith.try": "70ms" };
    expect(seen(at(80, 0, { labels }), at(81, 2), at(82, 1, { weight: 0 }))).toEqual([
      "80:2 81:2 82:5",
      { childPolicy: [{ pick_first: {} }], tryMs: 70 },
    ]);
    expect(seen(at(80, 0, { labels: { "trilith.balance": "sticky" } }))).toEqual(["80:0", turns]);
  });
});
