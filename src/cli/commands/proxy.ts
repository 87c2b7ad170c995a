// `trilith proxy 6379=redis 53/udp=dns`: ports of this host that stand for services, for programs that cannot be hooked.
import { InputError, messageOf } from "../../base/error.ts";
import { createHttp, type Handler } from "../../base/http.ts";
import { callbackLog } from "../../base/log.ts";
import { hostPort, type Listening } from "../../base/net.ts";
import { onSignals } from "../../base/signals.ts";
import type { ConnectPolicy, Proxies } from "../../index.ts";
import { type ClientOptions, clientFlags } from "../client.ts";
import { type Command, type Io, json, printable, table } from "../io.ts";

interface Options extends ClientOptions {
  readonly bind: string;
  readonly policy?: string;
  readonly proxyProtocol?: string | true;
  readonly try?: string;
  readonly wait?: string;
  readonly idle?: string;
  readonly drain: string;
  readonly status?: string;
  readonly domain: string;
}

const POLICIES = [
  "p2c",
  "round-robin",
  "random",
  "least",
  "first",
  "sticky",
] as const satisfies readonly ConnectPolicy[];

export const command: Command = {
  name: "proxy",
  summary: "make ports of this host stand for services: trilith proxy 6379=redis 53/udp=dns",
  define(parser, io, done) {
    clientFlags(parser)
      .argument("<rules...>", "[HOST:]PORT[/udp]=NAME; NAME is web, primary.db, db?env=prod or web.service.consul")
      .option("--bind <address>", "where ports without an address listen", "127.0.0.1")
      .option(
        "--policy <policy>",
        `how to choose a backend: ${POLICIES.join(", ")} (default: what its label says, else p2c)`,
      )
      .option("--proxy-protocol [version]", "send backends the PROXY protocol: version 1 or 2 (default)")
      .option("--try <duration>", "how long one backend may take to answer while others remain (default: 1s)")
      .option("--wait <duration>", "how long all tries for one connection may take (default: 5s)")
      .option("--idle <duration>", "UDP: forget a client after this long without a word (default: 60s)")
      .option("--drain <duration>", "how long open connections may go on after SIGTERM", "10s")
      .option("--status <port>", "serve figures over HTTP on this [host:]port: / as JSON, /metrics for Prometheus")
      .option("--domain <domain>", "the agent's DNS domain, for names that carry it", "consul")
      .addHelpText(
        "after",
        "\nSIGUSR1 prints the figures. The first SIGTERM or Ctrl-C drains connections,\nthe second one stops at once.",
      )
      .action(async (rules: readonly string[], options: Options) => done(await run(rules, options, io)));
  },
};

async function run(rules: readonly string[], options: Options, io: Io): Promise<number> {
  const { proxy } = await import("../../index.ts");
  const { durationOf, statusRows, hostFromText, proxyPortFromText } = await import("../../protocols/proxy/cli.ts");
  const say = (text: string): void => io.err(`trilith proxy: ${printable(text)}\n`);
  const duration = (text: string | undefined, flag: string): number | undefined =>
    text === undefined ? undefined : durationOf(text, flag);
  const policy = POLICIES.find((each) => each === options.policy);
  if (options.policy !== undefined && policy === undefined)
    throw new InputError("--policy", `"${options.policy}": expected one of ${POLICIES.join(", ")}`);
  const version = options.proxyProtocol === true ? "2" : options.proxyProtocol;
  if (version !== undefined && !/^v?[12]$/.test(version))
    throw new InputError("--proxy-protocol", `"${version}": expected 1 or 2`);
  const bind = hostFromText(options.bind) ?? options.bind;
  const statusAt = options.status === undefined ? undefined : proxyPortFromText(options.status, "--status");
  const [tryMs, limitMs, idleMs] = [
    duration(options.try, "--try"),
    duration(options.wait, "--wait"),
    duration(options.idle, "--idle"),
  ];
  const drainMs = durationOf(options.drain, "--drain");
  const proxies = await proxy(rules, {
    bind,
    domain: options.domain,
    drainMs,
    ...(policy === undefined ? {} : { policy }),
    ...(version === undefined ? {} : { proxyProtocol: version.endsWith("1") ? 1 : 2 }),
    ...(tryMs === undefined ? {} : { tryMs }),
    ...(limitMs === undefined ? {} : { limitMs }),
    ...(idleMs === undefined ? {} : { idleMs }),
    ...(options.httpAddr === undefined ? {} : { agent: options.httpAddr }),
    ...(options.token === undefined ? {} : { token: options.token }),
    log: callbackLog((level, _, text) => {
      if (level === "warn" || level === "error") say(text);
    }),
    onState: say,
  });
  const http = createHttp();
  let status: Listening | undefined;
  const usr1 = onSignals(["SIGUSR1"], () => io.err(table(statusRows(proxies.status()))));
  try {
    if (statusAt !== undefined)
      status = await http.serve({ host: statusAt.host ?? "127.0.0.1", port: statusAt.port }, figures(proxies));
    for (const { listening, protocol, name } of proxies.status())
      say(`${protocol === "udp" ? `${listening}/udp` : listening} stands for ${name.slice(name.indexOf("=") + 1)}`);
    if (status !== undefined) say(`figures at http://${hostPort(status.host, status.port)}/`);
    await new Promise<void>((resolve) => {
      if (io.signal.aborted) resolve();
      io.signal.addEventListener("abort", () => resolve(), { once: true });
    });
    const open = proxies.status().reduce((sum, each) => sum + each.open, 0);
    if (open > 0) say(`${messageOf(io.signal.reason)}: ${open} open connections may go on for ${drainMs / 1000} s`);
  } finally {
    await proxies.stop();
    usr1.close();
    await status?.close();
    await http.close();
  }
  return 0;
}

/** The figures over HTTP. */
function figures(proxies: Proxies): Handler {
  return (request, response) => {
    const path = (request.url ?? "/").split("?")[0];
    if (request.method !== "GET" && request.method !== "HEAD")
      response.writeHead(405, { "content-type": "text/plain", allow: "GET, HEAD" }).end("only GET and HEAD\n");
    else if (path === "/metrics")
      response.writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }).end(proxies.metrics());
    else if (path === "/")
      response.writeHead(200, { "content-type": "application/json" }).end(json({ proxies: proxies.status() }));
    else response.writeHead(404, { "content-type": "text/plain" }).end("there is / and /metrics\n");
  };
}
