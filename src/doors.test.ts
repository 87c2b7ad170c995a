// The library's doors refuse what they do not understand, before they ask anybody.
import grpc from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import { InputError } from "./base/error.ts";
import { connect } from "./connect.ts";
import { registerResolvers } from "./grpc.ts";
import { advertise, find, list } from "./library.ts";
import { proxy } from "./proxy.ts";
import { render } from "./render.ts";
import { createAgent, install } from "./undici.ts";

/** What a door without types is handed. */
type Any = never;

const doors: Record<string, (options: unknown) => unknown> = {
  connect: (options) => connect("web", options as Any),
  createAgent: (options) => createAgent(options as Any),
  install: (options) => install(options as Any),
  registerResolvers: (options) => registerResolvers(grpc, options as Any),
  find: (options) => find("web", {}, options as Any),
  list: (options) => list(options as Any),
  render: (options) => render(options as Any),
  proxy: (options) => proxy(["0=web"], options as Any),
  // All of its options are in one object, with some that must be there.
  advertise: (options) =>
    advertise(
      Object.getPrototypeOf(options ?? 0) === Object.prototype
        ? ({ name: "web", port: 1, ...(options as object) } as Any)
        : (options as Any),
    ),
};

/** What comes of it, thrown or rejected. */
async function saidBy(deed: () => unknown): Promise<Error> {
  try {
    await deed();
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return error as InputError;
  }
  throw new Error("it was taken");
}

describe("a door of the library", () => {
  it.each(Object.entries(doors))(
    "%s: names an option that there is not, the one that was meant, and all",
    async (name, door) => {
      const { message } = await saidBy(() => door({ agnet: "127.0.0.1:1" }));
      expect(message).toMatch(
        new RegExp(`^${name}: agnet: there is no such option: did you mean "agent"\\? known are .*\\bagent\\b`),
      );
      expect((await saidBy(() => door({ xyzzy: 1 }))).message).toContain(
        `${name}: xyzzy: there is no such option; known`,
      );
      for (const strange of [null, "web", ["a"], 3])
        expect((await saidBy(() => door(strange))).message).toContain(
          `${name}: options: ${JSON.stringify(strange)}: expected an object`,
        );
      expect((await saidBy(() => door({ agent: 8500 }))).message).toContain(`${name}: agent: 8500: expected a text`);
    },
  );

  it("says what is wrong about a value, and what would be right", async () => {
    for (const [options, text] of [
      [{ lables: { env: "prod" } }, 'connect: lables: there is no such option: did you mean "labels"?'],
      [{ labels: { env: 1 } }, 'connect: labels: {"env":1}: expected an object of texts such as { env: "prod" }'],
      [{ tags: "blue" }, 'connect: tags: "blue": expected a list of texts such as ["blue"]'],
      [{ tryMs: "500ms" }, 'connect: tryMs: "500ms": expected milliseconds, a number above 0'],
      [{ limitMs: 0 }, "connect: limitMs: 0: expected milliseconds"],
      [{ limitMs: Number.NaN }, "connect: limitMs: NaN: expected milliseconds"],
      [{ signal: new AbortController() }, "connect: signal: {}: expected an AbortSignal"],
      [{ policy: "frist" }, 'connect: policy: "frist": expected one of p2c, round-robin, random, least, first, sticky'],
    ] as const)
      expect((await saidBy(() => connect("web", options as Any))).message).toContain(text);
    for (const [options, text] of [
      [{ policy: "foo" }, 'proxy: policy: "foo": expected one of p2c, round-robin, random, least, first, sticky'],
      [{ proxyProtocol: 3 }, "proxy: proxyProtocol: 3: expected one of 1, 2"],
      [{ drainMs: -1 }, "proxy: drainMs: -1: expected milliseconds, a number from 0"],
      [{ clients: 0 }, "proxy: clients: 0: expected a whole number from 1"],
      [{ name: "x" }, "proxy: name: there is no such option"],
    ] as const)
      expect((await saidBy(() => proxy(["0=web"], options as Any))).message).toContain(text);
    expect((await saidBy(() => proxy("0=web" as Any))).message).toContain('proxy: ports: "0=web": expected a list');
    expect((await saidBy(() => connect(undefined as Any))).message).toBe(
      "connect: the service's name: undefined: expected a text",
    );
    expect((await saidBy(() => find("web", { labels: {} } as Any))).message).toContain("find: the labels");
    expect((await saidBy(() => advertise(undefined as Any))).message).toContain("advertise: name");
    expect((await saidBy(() => advertise({ name: "web", port: 70_000 }))).message).toContain("from 1 to 65535");
    expect((await saidBy(() => advertise({ name: "web" } as Any))).message).toContain("advertise: port: undefined");
    expect((await saidBy(() => advertise({ name: "", port: 80 }))).message).toContain('advertise: name: ""');
    expect((await saidBy(() => registerResolvers(grpc, { proxy: { host: "a" } } as Any))).message).toContain("1055");
    expect(() => registerResolvers(undefined as Any)).toThrow("expected the module @grpc/grpc-js");
  });

  it("takes every option there is, and undefined for any", async () => {
    const all = { agent: "127.0.0.1:1", token: "t", domain: "consul", policy: "first", caller: "me" } as const;
    const own = {
      connections: 2,
      pipelining: 1,
      allowH2: true,
      connect: { rejectUnauthorized: false },
      bodyTimeout: 0,
    };
    for (const options of [{ ...all, ...own }, { agent: undefined, connections: undefined } as Any])
      expect(createAgent(options)).toHaveProperty("dispatch");
    for (const options of [
      { ...all, bind: "127.0.0.1", tryMs: 1, limitMs: 1, idleMs: 1, clients: 1, drainMs: 0, proxyProtocol: 2 as const },
      { policy: undefined, bind: undefined, onState: undefined } as Any,
    ])
      await (await proxy(["0=web"], options)).stop();
    registerResolvers(grpc, {
      agent: "127.0.0.1:1",
      token: "t",
      tailscaled: "/nowhere",
      proxy: { host: "a", port: 1 },
    });
  });
});
