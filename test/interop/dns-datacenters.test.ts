// Names of other datacenters over DNS: two agents, then one that is gone; and one that does not answer in time, which holds nobody up.
import { execFile } from "node:child_process";
import { connect } from "node:net";
import { promisify } from "node:util";
import { afterEach, describe, expect, it } from "vitest";
import type { Lookup } from "../../src/contracts/lookup.ts";
import type { Answer, Query } from "../../src/model/query.ts";
import { decodeMessage, RCODE } from "../../src/wire/dns/index.ts";
import { serviceChange } from "../support/directory.ts";
import { queryPacket } from "../support/dns.ts";
import { startDns } from "../support/dns-peers.ts";
import { startAgent } from "../support/ground.ts";
import { world } from "../support/lookup.ts";
import { havePrograms } from "../support/peers.ts";

const run = promisify(execFile);
const undo: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step();
});

/** Asks two questions at once over TCP; resolves with numbers and response codes in the order of the answers. */
function twoOnOneConnection(port: number, ...names: readonly [string, string]): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1", () => {
      for (const [i, name] of names.entries()) {
        const packet = queryPacket(name, {}, i + 1);
        socket.write(Buffer.concat([Buffer.from([packet.length >> 8, packet.length & 255]), packet]));
      }
    });
    socket.once("error", reject);
    let got = Buffer.alloc(0);
    const answers: string[] = [];
    socket.on("data", (chunk: Buffer) => {
      got = Buffer.concat([got, chunk]);
      while (got.length >= 2 && got.length >= 2 + got.readUInt16BE(0)) {
        const { id, rcode } = decodeMessage(got.subarray(2, 2 + got.readUInt16BE(0)));
        got = got.subarray(2 + got.readUInt16BE(0));
        answers.push(`${id} ${rcode === RCODE.NOERROR ? "NOERROR" : rcode === RCODE.SERVFAIL ? "SERVFAIL" : rcode}`);
      }
      if (answers.length < 2) return;
      socket.destroy();
      resolve(answers.join(", "));
    });
  });
}

describe.runIf(await havePrograms("dig"))("datacenters", () => {
  it("are asked for names that carry theirs", async () => {
    const two = await startAgent({ datacenter: "dc2", node: "beta", advertiseAddress: "192.0.2.22" });
    undo.push(() => two.stop());
    const register = async (body: object): Promise<void> => {
      const reply = await fetch(`${two.url}/v1/agent/service/register`, { method: "PUT", body: JSON.stringify(body) });
      expect(reply.status).toBe(200);
    };
    await register({ Name: "web", ID: "w1", Port: 81, Address: "192.0.2.1", Tags: ["v1"], Meta: { env: "prod" } });
    await register({ Name: "web", ID: "w2", Port: 82 });
    const one = await startAgent({ datacenters: { dc2: [two.url] }, protocols: { dns: { port: 0 } } });
    undo.push(() => one.stop());
    const port = one.trilith.self.listening.get("dns")?.split(":").at(-1) ?? "";
    const dig = async (...args: string[]): Promise<string> =>
      (await run("dig", ["@127.0.0.1", "-p", port, "+time=8", "+tries=1", ...args])).stdout;
    const short = async (...args: string[]): Promise<string[]> =>
      (await dig("+short", ...args))
        .split("\n")
        .filter((line) => line !== "")
        .sort();

    expect(await short("web.service.dc2.consul")).toEqual(["192.0.2.1", "192.0.2.22"]);
    expect(await short("v1.WEB.service.DC2.dc.consul")).toEqual(["192.0.2.1"]);
    expect(await short("env--prod.web.service.dc2.consul")).toEqual(["192.0.2.1"]);
    expect(await short("+tcp", "_web._tcp.service.dc2.consul", "SRV")).toEqual([
      "1 1 81 c0000201.addr.dc2.consul.",
      "1 1 82 beta.node.dc2.consul.",
    ]);
    // What a name points to can be asked for as well, and what lies above names is not denied.
    expect(await short("c0000201.addr.dc2.consul")).toEqual(["192.0.2.1"]);
    for (const name of ["beta.node.dc2.consul", "BETA.node.DC2.dc.consul"]) {
      expect(await short(name), name).toEqual(["192.0.2.22"]);
      expect((await short(name, "TXT")).length, name).toBeGreaterThan(0);
      expect(await dig(name, "AAAA"), name).toMatch(/status: NOERROR[\s\S]*\bSOA\b/);
    }
    for (const name of ["dc2.consul", "dc2.dc.consul", "service.dc2.consul", "node.dc2.consul", "addr.dc2.consul"])
      expect(await dig(name), name).toContain("status: NOERROR");
    for (const name of [
      "none.service.dc2.consul",
      "web.service.dc3.consul",
      "dc3.consul",
      "web.service.consul",
      "none.node.dc2.consul",
      "beta.node.dc3.consul",
      "beta.node.consul",
    ])
      expect(await dig(name), name).toContain("status: NXDOMAIN");

    await two.stop();
    // The last known good while it is away; what was never asked is not denied.
    expect(await short("web.service.dc2.consul")).toEqual(["192.0.2.1", "192.0.2.22"]);
    expect(await short("beta.node.dc2.consul")).toEqual(["192.0.2.22"]);
    expect(await dig("fresh.service.dc2.consul")).toContain("status: SERVFAIL");
    expect(await dig("fresh.node.dc2.consul")).toContain("status: SERVFAIL");
  });

  it("that do not answer hold nobody up, on the same connection either", async () => {
    const here = await world();
    await here.directory.write([serviceChange("home", "w", "web", { address: "192.0.2.9", port: 80 })]);
    const waiting: Query[] = [];
    const lookup: Lookup = {
      ...here.lookup,
      resolve: (query, signal) =>
        query.datacenter === undefined
          ? here.lookup.resolve(query, signal)
          : new Promise<Answer>((_, reject) => {
              waiting.push(query);
              signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
            }),
    };
    const agent = await startDns({ directory: here.directory, lookup }, { upstreamTimeoutMs: 700 });
    undo.push(() => agent.stop());
    const order: string[] = [];
    const told = (name: string, answer: Promise<string>): Promise<string> =>
      answer.then((text) => {
        order.push(name);
        return text;
      });
    const slow = told("slow", agent.dig("far.service.dc2.consul"));
    // Two questions on one connection, the one that waits first: the other is answered before it [RFC 7766 §6.2.1.1].
    const pipelined = told("pipelined", twoOnOneConnection(agent.port, "far.service.dc2.consul", "web.service.consul"));
    const quick = told("quick", agent.dig("web.service.consul"));
    expect(await quick).toContain("192.0.2.9");
    expect(await slow).toContain("status: SERVFAIL");
    expect(await pipelined).toBe("2 NOERROR, 1 SERVFAIL");
    expect(order[0]).toBe("quick");
    expect(waiting.length).toBeGreaterThan(1);
  });
});
