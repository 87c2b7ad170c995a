// `trilith render --template IN:OUT:COMMAND`, `--haproxy web:FILE`: files kept up to date from the directory.
import { messageOf } from "../../base/error.ts";
import { createHttp, type Http } from "../../base/http.ts";
import { onHangup } from "../../base/terminal.ts";
import type { RenderEvent } from "../../index.ts";
import { type ClientOptions, clientFlags } from "../client.ts";
import { connectionOf } from "../connection.ts";
import { type Command, collect, type Io, printable } from "../io.ts";

interface Options extends ClientOptions {
  readonly template?: readonly string[];
  readonly haproxy?: readonly string[];
  readonly nginx?: readonly string[];
  readonly apache?: readonly string[];
  readonly config?: readonly string[];
  readonly check?: string;
  readonly wait?: string;
  readonly once?: boolean;
  readonly dry?: boolean;
}

export const command: Command = {
  name: "render",
  summary: "keep files up to date from the directory: trilith render --haproxy web:/etc/haproxy/web.cfg",
  define(parser, io, done) {
    clientFlags(parser)
      .option("--template <in:out[:command[:check]]>", "keep OUT as the Go template IN says (repeatable)", collect)
      .option("--haproxy <service:file[:command[:check]]>", "keep a backend section for HAProxy (repeatable)", collect)
      .option("--nginx <service:file[:command[:check]]>", "keep an upstream block for nginx (repeatable)", collect)
      .option("--apache <service:file[:command[:check]]>", "keep a balancer for Apache's httpd (repeatable)", collect)
      .option("--config <file>", "consul-template's configuration with template blocks (repeatable)", collect)
      .option("--check <command>", "must accept each new file before it is used: {} stands for it")
      .option("--wait <min[:max]>", "wait this long for bursts to end (default: 250ms:2s)")
      .option("--once", "write every file once and end")
      .option("--dry", "write and run nothing: print what would be written")
      .option("--json", "print what happens as lines of JSON")
      .addHelpText(
        "after",
        `
A file is written whole and at once, after --check, and only when it changed.
COMMAND runs afterwards (a reload); where it fails, the former file is put back
and it runs again. While no agent answers, files stay as they are.
SIGHUP reads templates and --config again. Exit code 1 with --once when a file
could not be written or no agent answers.`,
      )
      .action(async (options: Options) => done(await run(options, io)));
  },
};

/** Requests with the token, certificates and parameters that flags and environment give. */
function httpFor(
  options: ClientOptions,
  io: Io,
): { readonly agent: string; readonly http: Http & { close(): Promise<void> } } {
  const { datacenter: _, ...rest } = options;
  const { text, base, socketPath, extras, query } = connectionOf(rest, io.env);
  const http = createHttp();
  return {
    agent: socketPath === undefined ? base : text,
    http: {
      ...http,
      close: () => http.close(),
      serve: (on, handle) => http.serve(on, handle),
      async request(request) {
        const { headers, tls } = await extras();
        const more = query.map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
        if (options.stale === true && !request.url.includes("/v1/trilith/")) more.push("stale");
        const url =
          more.length === 0 ? request.url : `${request.url}${request.url.includes("?") ? "&" : "?"}${more.join("&")}`;
        const given = { ...request.headers, ...headers };
        return await http.request({ ...request, url, headers: given, ...(tls === undefined ? {} : { tls }) });
      },
    },
  };
}

async function run(options: Options, io: Io): Promise<number> {
  const { render } = await import("../../index.ts");
  const { template, haproxy, nginx, apache, config, check, wait, once, dry, datacenter } = options;
  const say = (text: string): void => io.err(`trilith render: ${printable(text)}\n`);
  const { agent, http } = httpFor(options, io);
  const isNamed =
    options.httpAddr !== undefined ||
    io.env("TRILITH_HTTP_ADDR") !== undefined ||
    io.env("CONSUL_HTTP_ADDR") !== undefined;
  try {
    const given = { template, haproxy, nginx, apache, config, check, wait, once, dry, datacenter };
    const renders = await render({
      ...(Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as object),
      // A configuration file may name another one.
      ...(isNamed ? { agent } : {}),
      http,
      onEvent: (event) => (options.json === true ? io.out(`${JSON.stringify(event)}\n`) : tell(event, io, say)),
      onOutput: (text) => io.err(`${text}\n`),
    });
    const hangup = onHangup(() => {
      renders.reload().then(
        () => say("templates read again"),
        (error: unknown) => say(`${messageOf(error)}; those before go on`),
      );
    });
    const stop = (): void => void renders.stop();
    io.signal.addEventListener("abort", stop, { once: true });
    try {
      if (io.signal.aborted) stop();
      return (await renders.ended()) || once !== true ? 0 : 1;
    } finally {
      hangup.close();
      io.signal.removeEventListener("abort", stop);
      await renders.stop();
    }
  } finally {
    await http.close();
  }
}

/** An event as a sentence. */
function sentence(event: RenderEvent): string {
  switch (event.event) {
    case "written":
      return `${event.path} written`;
    case "unchanged":
      return `${event.path} is up to date`;
    case "held":
      return `instances of "${event.service}" are held: ${event.text}`;
    case "released":
      return `nothing of "${event.service}" is held any more`;
    default:
      return event.text;
  }
}

/** An event for people. */
function tell(event: RenderEvent, io: Io, say: (text: string) => void): void {
  if (event.event === "dry") io.out(`> ${event.path}\n${event.text}${event.text.endsWith("\n") ? "" : "\n"}`);
  else say(sentence(event));
}
