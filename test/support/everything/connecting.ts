// The ways out that connect: programs that say a service's name and talk to whoever answers, who says which service he is.
import { dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import grpc from "@grpc/grpc-js";
import { registerResolvers } from "../../../src/grpc.ts";
import { connect } from "../../../src/index.ts";
import { createAgent } from "../../../src/undici.ts";
import { program, runToEnd } from "../program.ts";
import { AGENT, type Machine } from "./machine.ts";
import type { Entry, Exit, Seen } from "./model.ts";

const HOOK = join(dirname(dirname(program)), "hook.js");
/** A program that knows nothing of Trilith: fetches each URL and prints what it got. */
const FETCHES = `await Promise.all(process.argv.slice(1).map(async (url) => {
  await fetch(url).then(async (reply) => console.log(await reply.text()), () => {});
}));`;
const REQUEST = "GET / HTTP/1.0\r\n\r\n";

/** Every line of what servers said is a service's name. */
const named = (out: string): Seen[] =>
  out
    .split("\n")
    .filter((line) => line !== "")
    .map((service) => ({ service }));
const name = ({ service }: Entry): Seen => ({ service });

export function connecting(machine: Machine): readonly Exit[] {
  const urls = (services: readonly string[], domain: string): string[] =>
    services.map((service) => `http://${service}.${domain}/`);
  const curl = ["curl", "-s", "-Z", "-m", "8"];
  return [
    {
      title: "`trilith hook -- curl`",
      carries: "a connection",
      async shows(services) {
        const words = ["hook", "--", ...curl, ...urls(services, "service.consul")];
        return named((await machine.trilith(...words)).out);
      },
      as: name,
    },
    {
      title: "`node --import trilith/hook`",
      carries: "a connection",
      async shows(services) {
        const words = ["--import", HOOK, "--input-type=module", "-e", FETCHES, ...urls(services, "service.consul")];
        return named((await runToEnd([process.execPath, ...words])).out);
      },
      as: name,
    },
    {
      title: "`NAME.connect.consul`, any program",
      carries: "a connection",
      async shows(services) {
        const words = ["@127.0.0.1", "-p", "8600", "+short", ...services.map((service) => `${service}.connect.consul`)];
        const { out } = await runToEnd(["dig", ...words]);
        const addresses = out.split("\n").filter((line) => line.startsWith("127."));
        return named((await runToEnd([...curl, ...addresses.map((address) => `http://${address}/`)])).out);
      },
      as: name,
    },
    {
      title: "`trilith proxy`",
      carries: "a connection",
      async shows(services) {
        const ports = await machine.proxied(services);
        return named((await runToEnd([...curl, ...ports.map((port) => `http://127.0.0.1:${port}/`)])).out);
      },
      as: name,
    },
    {
      title: "the library's `connect`",
      carries: "a connection",
      async shows(services) {
        const answers = services.map(async (service) => {
          const socket = await connect(service, { agent: AGENT, limitMs: 2_000 }).catch(() => undefined);
          if (socket === undefined) return "";
          socket.write(REQUEST);
          const said = await text(socket);
          return said.slice(said.indexOf("\r\n\r\n") + 4);
        });
        return named((await Promise.all(answers)).join("\n"));
      },
      as: name,
    },
    {
      title: "undici's `Agent` of `trilith/undici`",
      carries: "a connection",
      async shows(services) {
        const agent = createAgent({ agent: AGENT });
        const answers = urls(services, "service.consul").map(async (url) => {
          const asked = agent.request({ origin: new URL(url).origin, path: "/", method: "GET" });
          return await asked.then(
            ({ body }) => body.text(),
            () => "",
          );
        });
        const said = await Promise.all(answers);
        await agent.destroy();
        return named(said.join("\n"));
      },
      as: name,
    },
    {
      title: "gRPC's name resolver",
      carries: "address, port",
      shows: async (services) => (await Promise.all(services.map(resolved))).flat(),
      as: ({ service, address, port }) => ({ service, address, ...(port === undefined ? {} : { port }) }),
    },
  ];
}

let registered = false;

/** What the resolver gives to a channel of this name. */
function resolved(service: string): Promise<readonly Seen[]> {
  if (!registered) registerResolvers(grpc, { agent: AGENT });
  registered = true;
  const target = { scheme: "trilith", path: service };
  return new Promise((done) => {
    const resolver = grpc.experimental.createResolver(
      target,
      (endpoints) => {
        resolver.destroy();
        const found = endpoints.ok ? endpoints.value.flatMap(({ addresses }) => addresses) : [];
        done(found.map((at) => ("port" in at ? { service, address: at.host, port: at.port ?? 0 } : { service })));
        return true;
      },
      {},
    );
    resolver.updateResolution();
  });
}
