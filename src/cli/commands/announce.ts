// `trilith announce`: registers something that runs already, for scripts and systemd's ExecStartPost; and takes it back.
import { systemClock } from "../../base/clock.ts";
import { codeOf, InputError } from "../../base/error.ts";
import { systemProcesses } from "../../base/process.ts";
import { type Client, type ClientOptions, clientFlags, withClient } from "../client.ts";
import { type Command, collect, type Io, pairs, printable } from "../io.ts";

interface Options extends ClientOptions {
  readonly name?: string;
  readonly id?: string;
  readonly port?: string;
  readonly address?: string;
  readonly udp?: boolean;
  readonly tag?: readonly string[];
  readonly label?: readonly string[];
  readonly check?: readonly string[];
  readonly interval: string;
  readonly ttl?: string;
  readonly pid?: string;
  readonly stay?: boolean;
  readonly wait: string;
  readonly withdraw?: boolean;
}

const PATH = "/v1/trilith/announce";
const RETRY_MS = 200;
const LONG_MS = 86_400_000;

/** Asks the agent, and goes on asking for so long where none is there yet: units start before it. */
async function patiently(client: Client, method: string, body: object, waitMs: number, io: Io): Promise<string> {
  const until = systemClock.monotonic() + waitMs;
  for (;;)
    try {
      return await client.send(method, PATH, { body: JSON.stringify(body) });
    } catch (error) {
      if (codeOf(error) !== "unavailable" || systemClock.monotonic() >= until) throw error;
      await systemClock.sleep(RETRY_MS, io.signal);
    }
}

export const command: Command = {
  name: "announce",
  summary: "register what is already running: trilith announce --name web --port 80 --pid $MAINPID",
  define(parser, io, done) {
    clientFlags(parser)
      .option("--name <name>", "the service's name")
      .option("--port <port>", "the port it listens on")
      .option("--id <id>", "its ID on this host (default: name:port)")
      .option("--address <address>", "the address it listens on (default: the host's own)")
      .option("--udp", "it is a UDP port")
      .option("--tag <tag>", "a tag (repeatable)", collect)
      .option("--label <key=value>", "a label (repeatable)", collect)
      .option("--check <check>", "http:/path, http://host/path, tcp, tcp:host:port (repeatable)", collect)
      .option("--interval <duration>", "how often to check", "10s")
      .option("--pid <pid>", "take it back when this process ends")
      .option("--ttl <duration>", "turn it critical unless it is announced again within this time")
      .option("--stay", "keep running and keep it announced; take it back on SIGTERM and Ctrl-C")
      .option("--withdraw", "take back what was announced with this --id, or with this --name and --port")
      .option("--wait <duration>", "how long to wait for an agent that is not running yet", "10s")
      .action(async (options: Options) => {
        const part = await import("../../protocols/process/cli.ts");
        const flags = { ...options, labels: pairs(options.label ?? [], "--label") };
        const waitMs = options.wait === "0" ? 0 : part.durationOf(options.wait, "--wait", 0);
        if (options.stay === true) {
          if (options.withdraw === true || options.ttl !== undefined || options.pid !== undefined)
            throw new InputError(
              "--stay",
              "goes with neither --withdraw, --ttl nor --pid: it lives as long as this command",
            );
          return done(await stay(part, flags, options, io));
        }
        await withClient(options, io, async (client) => {
          if (options.withdraw === true) {
            const id = part.idOf(flags);
            await patiently(client, "DELETE", { id }, waitMs, io);
            io.out(`Taken back: ${printable(id)}\n`);
            return;
          }
          const body = await part.announcementOf(flags, systemProcesses);
          await patiently(client, "POST", body, waitMs, io);
          io.out(`Announced ${printable(body.name)} as ${printable(body.id)}, ${untilWhen(body, options.ttl)}\n`);
        });
        done(0);
      });
  },
};

function untilWhen(body: { readonly id: string; readonly pid: number }, ttl: string | undefined): string {
  const ends = body.pid === 0 ? "" : `until process ${body.pid} ends`;
  const again = ttl === undefined ? "" : `to be announced again within ${ttl}`;
  if (ends !== "" || again !== "") return [ends, again].filter((text) => text !== "").join(", ");
  return `until it is taken back: trilith announce --withdraw --id ${printable(body.id)}`;
}

/** Announces as long as this command runs: by the library's own `advertise`, so that it goes with this process whatever ends it. */
async function stay(
  part: typeof import("../../protocols/process/cli.ts"),
  flags: Parameters<typeof part.announcementOf>[0],
  options: Options,
  io: Io,
): Promise<number> {
  const { name, port, protocol, address, tags, labels } = await part.announcementOf(flags, systemProcesses);
  let last = "";
  const advertised = await part.advertise({
    ...{ name, port, protocol, address, tags, labels },
    checks: options.check ?? [],
    intervalMs: part.durationOf(options.interval, "--interval"),
    ...(options.httpAddr === undefined ? {} : { agent: options.httpAddr }),
    ...(options.token === undefined ? {} : { token: options.token }),
    onState(state, text) {
      if (state === last) return;
      last = state;
      io.err(`trilith announce: ${state === "connected" ? `"${printable(name)}" is announced` : printable(text)}\n`);
    },
  });
  try {
    while (!io.signal.aborted) await systemClock.sleep(LONG_MS, io.signal).catch(() => {});
  } finally {
    await advertised.stop();
  }
  return 0;
}
