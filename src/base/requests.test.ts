// Requests over real sockets: bodies within and beyond their limit, pauses, callers.
import { request as send } from "node:http";
import { afterEach, describe, expect, it } from "vitest";
import { fakeClock } from "../../test/simulated/clock.ts";
import { systemClock } from "./clock.ts";
import { codeOf, messageOf } from "./error.ts";
import { createHttp, type Handler } from "./http.ts";
import type { Listening } from "./net.ts";
import { bodyOf, callerOf, decodeName, foreignPageOf, isFromHere } from "./requests.ts";

let server: Listening | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

async function serve(handle: Handler): Promise<string> {
  server = await createHttp().serve({ host: "127.0.0.1", port: 0 }, handle);
  return `http://127.0.0.1:${server.port}/`;
}

describe("bodies", () => {
  const answering = (maxBytes: number): Promise<string> =>
    serve(async (request, response) => {
      try {
        response.end((await bodyOf(request, systemClock, maxBytes)).toString());
      } catch (error) {
        response.writeHead(413).end(`${codeOf(error)}: ${messageOf(error)}`);
      } finally {
        request.resume();
      }
    });

  it("come whole", async () => {
    const url = await answering(10);
    expect(await (await fetch(url, { method: "POST", body: "0123456789" })).text()).toBe("0123456789");
    expect(await (await fetch(url)).text()).toBe("");
  });

  it("that are too large are refused in words that arrive, however much is still to come", async () => {
    const url = await answering(10);
    for (const bytes of [11, 5_000_000]) {
      const answer = await fetch(url, { method: "POST", body: "x".repeat(bytes) });
      expect([answer.status, await answer.text()]).toEqual([413, "too-large: a body may have 10 bytes"]);
    }
  });

  it("that pause are given up with their connection", async () => {
    const clock = fakeClock();
    let tell: (code: string) => void = () => {};
    const failed = new Promise<string>((resolve) => {
      tell = resolve;
    });
    const url = await serve(async (request) => {
      const body = bodyOf(request, clock, 10);
      void clock.advance(31_000);
      await body.catch((error: unknown) => tell(codeOf(error)));
    });
    const slow = send(url, { method: "POST", headers: { "content-length": "10" } });
    const closed = new Promise<void>((resolve) => slow.once("error", () => resolve()));
    slow.flushHeaders();
    expect(await failed).toBe("timeout");
    await closed;
  });
});

describe("callers", () => {
  const from = (remoteAddress: string | undefined, headers = {}): Parameters<typeof isFromHere>[0] =>
    ({ socket: { remoteAddress }, headers }) as never;

  it("are named by their address as people know it", () => {
    expect(callerOf(from("::ffff:192.0.2.7"))).toBe("192.0.2.7");
    expect(callerOf(from("fe80::1%eth0"))).toBe("fe80::1");
    expect(callerOf(from(undefined))).toBeUndefined();
  });

  it("are on this host over loopback and unix sockets, but not behind a proxy", () => {
    for (const here of ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", undefined])
      expect(isFromHere(from(here)), String(here)).toBe(true);
    for (const there of ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1", "1270::1"])
      expect(isFromHere(from(there)), there).toBe(false);
    expect(isFromHere(from("127.0.0.1", { "x-forwarded-for": "192.0.2.7" }))).toBe(false);
    expect(isFromHere(from("127.0.0.1", { forwarded: "for=192.0.2.7" }))).toBe(false);
  });

  it("are foreign web pages unless the page is the listener's own, which a name cannot prove", () => {
    const page = (origin?: string, host?: string): string | undefined =>
      foreignPageOf({ headers: { origin, host } } as never);
    expect(page(undefined, "127.0.0.1:8500")).toBeUndefined();
    for (const host of ["127.0.0.1:8500", "localhost:8500", "[::1]:8500", "192.0.2.1"])
      expect(page(`http://${host}`, host), host).toBeUndefined();
    expect(page("http://localhost:3000", "localhost:8500")).toBe("http://localhost:3000");
    expect(page("http://rebound.example:8500", "rebound.example:8500")).toBe("http://rebound.example:8500");
    expect(page("null", "127.0.0.1:8500")).toBe("null");
  });

  it("name things in percent encoding", () => {
    expect(decodeName("a%2Fb")).toBe("a/b");
    expect(() => decodeName("%ff")).toThrow('path "%ff": expected UTF-8 in percent encoding');
  });
});
