// What goes over the wire between peers: the key never does, nothing overheard can be used again, no line can be changed, left out or repeated.
import { connect, createServer, type Socket } from "node:net";
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { startAgent } from "../../../test/support/ground.ts";
import { eventually, freePort } from "../../../test/support/peers.ts";
import { TrilithError } from "../../base/error.ts";
import { isPrivileged, placeOf } from "./config.ts";
import { readPeerLine } from "./lines.ts";
import { createSeal, isProof, proofOf } from "./secret.ts";

const KEY = "a secret of sufficient length";
const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

/** Stands between two hosts: keeps what passes, and may change what the listener says. */
async function between(to: number): Promise<{
  readonly port: number;
  readonly asked: () => string;
  readonly answered: () => string;
  change: (text: string) => string;
}> {
  let asked = "";
  let answered = "";
  const sockets = new Set<Socket>();
  const own = { port: 0, asked: () => asked, answered: () => answered, change: (text: string) => text };
  const server = createServer((caller) => {
    const listener = connect(to, "127.0.0.1");
    for (const socket of [caller, listener]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.once("close", () => {
        sockets.delete(socket);
        caller.destroy();
        listener.destroy();
      });
    }
    caller.on("data", (chunk) => {
      asked += chunk.toString("latin1");
      listener.write(chunk);
    });
    listener.on("data", (chunk) => {
      answered += chunk.toString("latin1");
      caller.write(own.change(chunk.toString("latin1")), "latin1");
    });
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  own.port = (server.address() as { port: number }).port;
  ends.push(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((closed) => server.close(closed));
  });
  return own;
}

async function listener(): Promise<{ readonly port: number; readonly agent: Awaited<ReturnType<typeof startAgent>> }> {
  const port = await freePort();
  // Nobody answers at the place it knows.
  const agent = await startAgent({ node: "alpha", peers: { find: "list", hosts: ["127.0.0.1:9"], port, key: KEY } });
  ends.push(() => agent.stop());
  await agent.trilith.agent.register("api", {
    ...{ id: "web-1", name: "web", tags: [], labels: {}, address: "", port: 80, checks: [] },
  });
  return { port, agent };
}

async function caller(hosts: readonly string[]): Promise<Awaited<ReturnType<typeof startAgent>>> {
  const agent = await startAgent({ node: "beta", peers: { find: "list", hosts, port: await freePort(), key: KEY } });
  ends.push(() => agent.stop());
  return agent;
}

it("never sends the key, and what was overheard is of no use", async () => {
  const { port } = await listener();
  const middle = await between(port);
  const beta = await caller([`127.0.0.1:${middle.port}`]);
  await eventually("beta hears", () => beta.trilith.directory.view().residents("web").length === 1);
  for (const text of [middle.asked(), middle.answered()]) {
    expect(text).not.toContain(KEY);
    expect(text).not.toContain(Buffer.from(KEY).toString("base64").replace(/=+$/, ""));
  }
  const request = /GET (\/v1\/peers\/own\S*) HTTP[\s\S]*?authorization: (Trilith-Peer \S+)/i.exec(middle.asked());
  const [, target = "", authorization = ""] = request ?? [];
  expect(target).toContain("nonce=");
  const again = await fetch(`http://127.0.0.1:${port}${target}`, { headers: { authorization } });
  expect(again.status).toBe(403);
  // Nor is the proof good for another question with a nonce of one's own.
  const { nonce } = (await (await fetch(`http://127.0.0.1:${port}/v1/peers/nonce`)).json()) as { nonce: string };
  const other = await fetch(`http://127.0.0.1:${port}${target.replace(/nonce=[^&]+/, `nonce=${nonce}`)}`, {
    headers: { authorization },
  });
  expect(other.status).toBe(403);
});

it("believes no line that somebody on the way has changed", async () => {
  const { port, agent } = await listener();
  const middle = await between(port);
  middle.change = (text) => text.replace(/"port":80\b/, '"port":81');
  const beta = await caller([`127.0.0.1:${middle.port}`]);
  await eventually("beta says so", () =>
    beta.trilith.sources().some(({ ok, text }) => !ok && /does not have this agent's key/.test(text)),
  );
  // Alpha may have called back by now, past whoever stands between.
  expect(
    beta.trilith.directory
      .view()
      .residents("web")
      .filter(({ instance }) => instance.port !== 80),
  ).toEqual([]);
  middle.change = (text) => text;
  await eventually(
    "the truth comes through",
    () => beta.trilith.directory.view().residents("web")[0]?.instance.port === 80,
  );
  expect(agent.errors).toEqual([]);
});

describe("a seal", () => {
  it("opens what was closed in the same place of the same stream, and nothing else", () => {
    fc.assert(
      fc.property(fc.array(fc.string(), { minLength: 2, maxLength: 6 }), fc.nat(), (texts, seed) => {
        const close = createSeal(KEY, ["listener", "caller"]);
        const lines = texts.map((text) => close.close(text));
        const open = createSeal(KEY, ["listener", "caller"]);
        expect(lines.map((line) => open.open(line))).toEqual(texts);
        const at = seed % (lines.length - 1);
        const skipped = createSeal(KEY, ["listener", "caller"]);
        for (const line of lines.slice(0, at)) skipped.open(line);
        expect(skipped.open(lines[at + 1] ?? "")).toBeUndefined();
        const repeated = createSeal(KEY, ["listener", "caller"]);
        repeated.open(lines[0] ?? "");
        expect(repeated.open(lines[0] ?? "")).toBeUndefined();
        for (const stranger of [
          createSeal(KEY, ["listener", "other"]),
          createSeal("another secret", ["listener", "caller"]),
        ])
          expect(stranger.open(lines[0] ?? "")).toBeUndefined();
        expect(createSeal(KEY, ["listener", "caller"]).open(`${lines[0]}!`)).toBeUndefined();
      }),
    );
  });

  it("is no proof, nor is a proof for another nonce, target or key", () => {
    const proof = proofOf(KEY, "nonce", "/v1/peers/own");
    expect(isProof(KEY, "nonce", "/v1/peers/own", proof)).toBe(true);
    expect(isProof(KEY, "nonc", "/v1/peers/own", proof)).toBe(false);
    expect(isProof(KEY, "nonce", "/v1/peers/own?", proof)).toBe(false);
    expect(isProof("another", "nonce", "/v1/peers/own", proof)).toBe(false);
    expect(isProof(KEY, "nonce", "/v1/peers/own", "")).toBe(false);
  });
});

it("reads any line as one of the conversation or says what is wrong with it", () => {
  const pieces = fc.oneof(
    fc.string(),
    fc.json(),
    fc
      .record(
        {
          kind: fc.constantFrom("hello", "own", "beat", "peers", "goodbye", "x"),
          rows: fc.array(
            fc.oneof(
              fc.jsonValue(),
              fc.record({
                table: fc.constantFrom("node", "service", "check", "kv"),
                id: fc.string(),
                value: fc.jsonValue(),
              }),
            ),
          ),
          version: fc.jsonValue(),
        },
        { requiredKeys: ["kind"] },
      )
      .map((value) => JSON.stringify(value)),
  );
  fc.assert(
    fc.property(pieces, (line) => {
      try {
        readPeerLine(line);
      } catch (error) {
        expect(error).toBeInstanceOf(TrilithError);
        expect(["damaged", "invalid"]).toContain((error as TrilithError).code);
      }
    }),
    { numRuns: 2_000 },
  );
});

it("reads places as people write them", () => {
  expect(
    ["10.0.0.2", "10.0.0.2:99", "host-b", "host-b:99", "fd00::1", "[fd00::1]", "[fd00::1]:99"].map((text) =>
      placeOf(text, 8504),
    ),
  ).toEqual([
    "10.0.0.2:8504",
    "10.0.0.2:99",
    "host-b:8504",
    "host-b:99",
    "[fd00::1]:8504",
    "[fd00::1]:8504",
    "[fd00::1]:99",
  ]);
  for (const text of ["", "a b", "http://a", "a:0", "a:70000", "[a]:1", "a:b"])
    expect(() => placeOf(text, 8504)).toThrow(/expected tailnet, lan, or hosts/);
  expect(["127.0.0.1", "::1", "100.64.0.1", "100.127.255.254", "fd7a:115c:a1e0::1"].every(isPrivileged)).toBe(true);
  expect(["10.0.0.1", "100.63.0.1", "100.128.0.1", "fd7a:115c:a1e1::1", "host"].some(isPrivileged)).toBe(false);
});
