// A host that can open no more connections, or start no more programs, knows nothing about whom it checks: no kind of check says anything then.
import net from "node:net";
import grpc from "@grpc/grpc-js";
import { afterEach, describe, expect, onTestFinished, test, vi } from "vitest";
import { asked, checkOf, host, service } from "../../../test/support/agent-host.ts";
import type { Http } from "../../base/http.ts";
import type { Net } from "../../base/net.ts";
import type { Processes } from "../../base/process.ts";
import { Shortage } from "../../base/shortage.ts";
import type { Probe } from "../../contracts/probe.ts";
import { grpcProbe } from "./grpc.ts";
import { h2pingProbe } from "./h2ping.ts";
import { httpProbe } from "./http.ts";
import { osServiceProbe } from "./os-service.ts";
import { scriptProbe } from "./script.ts";
import { tcpProbe } from "./tcp.ts";
import { udpProbe } from "./udp.ts";

const fails = (): Promise<never> =>
  Promise.reject(Object.assign(new Error("connect EMFILE 10.0.0.1:80"), { code: "EMFILE", syscall: "connect" }));
const noNet = { connect: fails, exchange: fails } as unknown as Net;
const http = { request: fails } as unknown as Http;
const processes = { run: fails } as unknown as Processes;

const KINDS: readonly (readonly [Probe, unknown])[] = [
  [tcpProbe(noNet) as Probe, {}],
  [udpProbe(noNet) as Probe, {}],
  [h2pingProbe(noNet) as Probe, {}],
  [httpProbe(http) as Probe, { url: "/health" }],
  [scriptProbe(processes) as Probe, { args: ["/check"] }],
  [osServiceProbe(processes) as Probe, { name: "nginx" }],
];

afterEach(() => vi.restoreAllMocks());

describe("a host that has run out of something", () => {
  test.each(KINDS.map(([probe, raw]) => [probe.kind, probe, raw] as const))(
    "gives no verdict by %s",
    async (_, probe, raw) => {
      const asking = probe.run(probe.parse(raw), { address: "10.0.0.1", port: 80 }, new AbortController().signal);
      await expect(asking).rejects.toThrow(Shortage);
    },
  );

  test("gives no verdict by grpc; a server that has run out of something is another matter", async () => {
    const said = "/grpc.health.v1.Health/Check: connect EMFILE 10.0.0.9:5432";
    const server = new grpc.Server();
    const identity = (bytes: Buffer): Buffer => bytes;
    server.addService(
      {
        check: {
          ...{ path: "/grpc.health.v1.Health/Check", requestStream: false, responseStream: false },
          ...{ requestSerialize: identity, requestDeserialize: identity },
          ...{ responseSerialize: identity, responseDeserialize: identity },
        },
      },
      {
        check: ((_, done) => done({ code: grpc.status.UNAVAILABLE, details: said })) as grpc.handleUnaryCall<
          Buffer,
          Buffer
        >,
      },
    );
    onTestFinished(() => server.forceShutdown());
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      ),
    );
    const probe = grpcProbe();
    const ask = () => probe.run(probe.parse({}), { address: "127.0.0.1", port }, new AbortController().signal);
    expect(await ask()).toMatchObject({ status: "critical", output: expect.stringContaining(said) });
    vi.spyOn(net, "connect").mockImplementation(() => {
      const socket = new net.Socket();
      const error = Object.assign(new Error(`connect EMFILE 127.0.0.1:${port}`), {
        code: "EMFILE",
        syscall: "connect",
      });
      process.nextTick(() => socket.destroy(error));
      return socket;
    });
    await expect(ask()).rejects.toThrow(Shortage);
  });

  test("leaves checks as they are, says so, and goes on where it left off", async () => {
    const { agent, directory, clock, told } = await host();
    let short = false;
    Object.defineProperty(told, "outcome", {
      get: () => {
        if (short) throw new Shortage("this process may open no more files", new Error("connect EMFILE"));
        return { status: "passing", output: "fine" };
      },
    });
    await agent.register("api", service("web", { checks: [asked("told", { intervalMs: 10_000 })] }));
    // Checks of services on other nodes lack the same, which is told once.
    const external = { node: { name: "printer", address: "192.0.2.77", labels: {} } };
    const printer = { foreignId: "p", external, checks: [asked("told", { intervalMs: 10_000 })] };
    await agent.adopt("mdns", { list: [service("ipp", printer)], authority: "second-hand" });
    await clock.advance(11_000);
    expect(checkOf(directory, "service:web")).toMatchObject({ status: "passing", output: "fine" });
    short = true;
    const before = told.asked;
    await clock.advance(60_000);
    expect(told.asked).toBeGreaterThan(before + 3);
    expect(checkOf(directory, "service:web")).toMatchObject({ status: "passing", output: "fine" });
    expect(agent.complaints()).toEqual([
      {
        from: "agent",
        about: "checks",
        text: "checks cannot be asked and stay as they are: this process may open no more files: connect EMFILE",
      },
    ]);
    short = false;
    await clock.advance(90_000);
    expect(agent.complaints()).toEqual([]);
    // Of what nobody asks any more nothing is told for ever.
    short = true;
    await clock.advance(11_000);
    expect(agent.complaints()).toHaveLength(1);
    await agent.deregister("api", "web");
    await agent.adopt("mdns", { list: [], authority: "second-hand" });
    await clock.advance(60_000);
    expect(agent.complaints()).toEqual([]);
  });
});
