// The docker check: runs a command inside a container; exit 0 passing, 1 warning, anything else critical. Texts as Consul writes them.
import { codeOf, InputError, messageOf } from "../../base/error.ts";
import type { Http, HttpResponse } from "../../base/http.ts";
import { throwIfShort } from "../../base/shortage.ts";
import { defaultLimits, type Limits, type Probe, type Target } from "../../contracts/probe.ts";
import type { Outcome } from "../../model/check.ts";
import { Tail, tailNote, timedOut } from "../../wire/check-output.ts";
import { FrameReader } from "../../wire/docker/frames.ts";
import type { Endpoint } from "./endpoint.ts";

/** What is run where. */
export interface ExecDetail {
  /** ID or name. */
  readonly container: string;
  /** The command and its arguments; no shell comes in between. */
  readonly args: readonly string[];
}

const KNOWN = ["container", "args", "shell"];
const ANSWER_MAX_BYTES = 1 << 20;

/** `shell` is taken and left alone, as Consul does: a command is always given. */
function parse(raw: unknown): ExecDetail {
  const given = (raw ?? {}) as Readonly<Record<string, unknown>>;
  const fail = (key: string, right: string): never => {
    throw new InputError(`docker check: ${key}`, `${JSON.stringify(given[key])}: expected ${right}`);
  };
  if (typeof given !== "object" || Array.isArray(given))
    throw new InputError("docker check", `${JSON.stringify(raw)}: expected an object with ${KNOWN.join(", ")}`);
  for (const key of Object.keys(given))
    if (!KNOWN.includes(key))
      throw new InputError("docker check", `unknown key "${key}": known are ${KNOWN.join(", ")}`);
  const { container, args } = given;
  if (typeof container !== "string" || !/^[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(container))
    return fail("container", "a container's ID or name");
  if (!Array.isArray(args) || args.length === 0 || !args.every((arg) => typeof arg === "string") || args[0] === "")
    return fail("args", 'the command and its arguments: ["/bin/check", "-v"]');
  return { container, args: [...args] };
}

/** A command in a container, known to one engine. */
interface Command {
  readonly endpoint: Endpoint;
  readonly id: string;
}

/** A failed step, told as the check's output. */
class Failed extends Error {}

/** Makes the docker probe; the first endpoint that can be reached and has the container is asked. `nobody`: what to say where there is no endpoint. */
export function execProbe(
  http: Http,
  endpoints: readonly Endpoint[],
  nobody = "there is no Docker engine to ask",
): Probe<ExecDetail> {
  /** Commands that took longer than they may and cannot be ended through the engine: until they end no other one is started. */
  const stray = new WeakMap<ExecDetail, Command>();

  async function call(
    { base, socketPath, tls }: Endpoint,
    method: "GET" | "POST",
    path: string,
    signal: AbortSignal,
    body?: Readonly<Record<string, unknown>>,
  ): Promise<HttpResponse> {
    const certificates = await tls?.();
    return await http.request({
      url: base + path,
      method,
      signal,
      // The check's own time-out is in the signal.
      headTimeoutMs: 0,
      bodyTimeoutMs: 0,
      ...(socketPath === undefined ? {} : { socketPath }),
      ...(certificates === undefined ? {} : { tls: certificates }),
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    });
  }

  async function json(answer: HttpResponse): Promise<Readonly<Record<string, unknown>>> {
    const value: unknown = JSON.parse(await answer.text(ANSWER_MAX_BYTES));
    if (typeof value !== "object" || value === null) throw new Failed("the Docker engine's answer is not an object");
    return value as Readonly<Record<string, unknown>>;
  }

  /** Creates the command at the first engine that can be reached and has the container. */
  async function create({ container, args }: ExecDetail, signal: AbortSignal): Promise<Command> {
    // Of several that cannot be reached the first one is the one that was meant.
    let failure: unknown;
    let unknown: Failed | undefined;
    for (const endpoint of endpoints) {
      let answer: HttpResponse;
      try {
        answer = await call(endpoint, "POST", `/containers/${encodeURIComponent(container)}/exec`, signal, {
          AttachStdin: false,
          AttachStdout: true,
          AttachStderr: true,
          Tty: false,
          Cmd: args,
        });
      } catch (error) {
        // What was sent and not answered must not be sent again elsewhere.
        if (signal.aborted || !["unavailable", "not-found"].includes(codeOf(error))) throw error;
        failure ??= error;
        continue;
      }
      if (answer.status === 201) return { endpoint, id: String((await json(answer))["Id"]) };
      const said = (await answer.text(ANSWER_MAX_BYTES)).trim();
      if (answer.status === 404) unknown = new Failed(`create exec failed for unknown container ${container}`);
      else if (answer.status === 409)
        throw new Failed(`create exec failed since container ${container} is paused or stopped`);
      else throw new Failed(`create exec failed for container ${container} with status ${answer.status}: ${said}`);
    }
    throw unknown ?? failure ?? new Failed(`exec failed: ${nobody}`);
  }

  async function start(detail: ExecDetail, { endpoint, id }: Command, said: Tail, signal: AbortSignal): Promise<void> {
    const answer = await call(endpoint, "POST", `/exec/${id}/start`, signal, { Detach: false, Tty: false });
    if (answer.status !== 200) {
      const text = (await answer.text(ANSWER_MAX_BYTES)).trim();
      if (answer.status === 409)
        throw new Failed(`start exec failed since container ${detail.container} is paused or stopped`);
      throw new Failed(`start exec failed for container ${detail.container} with status ${answer.status}: ${text}`);
    }
    const reader = new FrameReader();
    const stop = (): void => void answer.body.destroy(signal.reason as Error);
    signal.addEventListener("abort", stop, { once: true });
    try {
      if (signal.aborted) stop();
      for await (const chunk of answer.body as AsyncIterable<Uint8Array>)
        for (const { bytes } of reader.take(chunk)) said.add(bytes);
    } finally {
      signal.removeEventListener("abort", stop);
      answer.body.destroy();
    }
    if (!reader.complete)
      throw new Failed(`the output of the command in container ${detail.container} ended within a frame`);
  }

  async function inspect(
    { endpoint, id }: Command,
    signal: AbortSignal,
  ): Promise<{ readonly running: boolean; readonly exit: unknown }> {
    const answer = await call(endpoint, "GET", `/exec/${id}/json`, signal);
    if (answer.status !== 200) {
      // The engine forgets commands some minutes after their end, and all when it starts anew.
      if (answer.status === 404) {
        await answer.text(ANSWER_MAX_BYTES);
        return { running: false, exit: undefined };
      }
      throw new Failed(
        `inspect exec failed with status ${answer.status}: ${(await answer.text(ANSWER_MAX_BYTES)).trim()}`,
      );
    }
    const state = await json(answer);
    return { running: state["Running"] === true, exit: state["ExitCode"] };
  }

  return {
    kind: "docker",
    defaultTimeoutMs: 30_000,
    parse,
    async run(detail, _target: Target, signal, limits: Limits = defaultLimits): Promise<Outcome> {
      const said = new Tail(limits.outputMaxBytes);
      let command: Command | undefined;
      try {
        const before = stray.get(detail);
        if (before !== undefined) {
          if ((await inspect(before, signal)).running)
            return {
              status: "critical",
              output: `the command of an earlier run, which timed out, still runs in container ${detail.container}`,
              final: true,
            };
          stray.delete(detail);
        }
        command = await create(detail, signal);
        await start(detail, command, said, signal);
        const { running, exit } = await inspect(command, signal);
        if (running || typeof exit !== "number")
          throw new Failed(`the Docker engine does not tell how the command in container ${detail.container} ended`);
        return {
          status: exit === 0 ? "passing" : exit === 1 ? "warning" : "critical",
          output: tailNote(said.bytes(), said.totalBytes),
        };
      } catch (error) {
        if (signal.aborted) {
          if (command !== undefined) stray.set(detail, command);
          return { status: "critical", output: timedOut(limits.timeoutMs, said), final: true };
        }
        throwIfShort(error);
        const output =
          error instanceof Failed
            ? error.message
            : `exec failed for container ${detail.container}: ${messageOf(error)}`;
        return { status: "critical", output };
      }
    },
  };
}
