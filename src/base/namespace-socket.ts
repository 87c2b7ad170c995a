// Sockets in other network namespaces (a container's): opened there by a child process, used here, since a socket stays where it was made.
import { spawn } from "node:child_process";
import type { Socket as DatagramSocket } from "node:dgram";
import { readlink } from "node:fs/promises";
import { createRequire } from "node:module";
import { createServer, Server, Socket } from "node:net";
import { fileURLToPath } from "node:url";
import { messageOf, TrilithError, wrap } from "./error.ts";
import type { ChildSays } from "./namespace-child.ts";
import { hostPort } from "./net.ts";

/** Where to listen. */
export interface NamespaceSocket {
  readonly protocol: "tcp" | "udp";
  /** An IP address of that namespace: "127.0.0.1", "::1". */
  readonly host: string;
  readonly port: number;
}

/**
 * A socket that was opened; who holds it closes it, for until then it keeps its namespace alive. What comes in before somebody listens to "connection"
 * ("message") is kept for that one. Connections come paused, and their two directions end one by one (`pauseOnConnect`, `allowHalfOpen`).
 */
export type OpenedSocket =
  | { readonly protocol: "tcp"; readonly server: Server }
  | { readonly protocol: "udp"; readonly socket: DatagramSocket };

/** Network namespaces of this host and sockets in them. */
export interface NamespaceSockets {
  /**
   * The identity of a process's network namespace, "net:[4026531840]"; the same for all processes in it, and nobody else's while it exists.
   * @throws TrilithError `not-found` where there is no such process, `not-allowed` where its namespaces may not be looked at
   */
  namespaceOf(pid: number): Promise<string>;
  /** This process's own one. */
  ownNamespace(): Promise<string>;
  /**
   * Opens sockets in the network namespace of a process; one answer for each, in order. A refused one says `address-in-use`, `not-allowed`, or `unsupported`
   * where the namespace has no such address (IPv6 is often off).
   * @throws TrilithError where the namespace cannot be entered: `not-found` where the process is gone or lives in another namespace than `namespace` by now,
   * `not-allowed` without CAP_SYS_ADMIN, `unsupported` without nsenter, the signal's reason when aborted
   */
  open(
    from: { readonly pid: number; readonly namespace: string },
    wanted: readonly NamespaceSocket[],
    signal?: AbortSignal,
  ): Promise<readonly (OpenedSocket | TrilithError)[]>;
}

/** What an agent needs. */
const RIGHTS =
  "an agent that is to listen in containers runs as root, or with CAP_SYS_ADMIN and CAP_SYS_PTRACE, and CAP_NET_BIND_SERVICE for ports below 1024";
/** It starts in a fraction of a second; what takes longer hangs. */
const DEADLINE_MS = 10_000;
const STDERR_MAX_BYTES = 2_000;
/** What others would have a Node process load or do (hooks, inspectors, coverage) is not for this one. */
const NOT_FOR_THE_CHILD = /^(NODE_|LD_PRELOAD$|TRILITH_)/;

/** The command line of the child program; from sources it is run by tsx. */
function childCommand(): string[] {
  const source = import.meta.url.endsWith(".ts");
  const script = fileURLToPath(new URL(`./namespace-child.${source ? "ts" : "js"}`, import.meta.url));
  return [
    process.execPath,
    ...(source ? ["--import", `file://${createRequire(import.meta.url).resolve("tsx")}`] : []),
    script,
  ];
}

async function namespaceOf(pid: number, kind: "net" | "user" = "net"): Promise<string> {
  try {
    return await readlink(`/proc/${pid}/ns/${kind}`);
  } catch (error) {
    const doing = `looking at the namespaces of process ${pid}`;
    const wrapped = wrap(error, doing);
    if (wrapped.code !== "not-allowed") throw wrapped;
    throw new TrilithError("not-allowed", `${doing}: ${messageOf(error)}; ${RIGHTS}`, error);
  }
}

/** The words by which another network namespace is entered: root needs no more; others become the owner of it where they are (rootless Podman). */
async function entering(pid: number): Promise<string[]> {
  const words = ["nsenter", `--net=/proc/${pid}/ns/net`];
  if (process.geteuid?.() === 0) return words;
  const [theirs, own] = await Promise.all([namespaceOf(pid, "user"), readlink("/proc/self/ns/user")]);
  return theirs === own ? words : [...words, `--user=/proc/${pid}/ns/user`, "--preserve-credentials"];
}

function refusal(doing: string, stderr: string, exitCode: number | null): TrilithError {
  const said = stderr.trim().split("\n").slice(-3).join("; ") || `it ended with ${exitCode}`;
  if (/not permitted|permission denied/i.test(said))
    return new TrilithError("not-allowed", `${doing}: ${said}; ${RIGHTS}`);
  return new TrilithError(/no such file/i.test(said) ? "not-found" : "unavailable", `${doing}: ${said}`);
}

/** What came before anybody listened comes when somebody does. */
function keepUntilHeard(emitter: Server | DatagramSocket, event: "connection" | "message", early: unknown[][]): void {
  const keep = (...args: unknown[]): void => void early.push(args);
  const onListener = (name: string | symbol, listener: unknown): void => {
    if (name !== event || listener === keep) return;
    emitter.off("newListener", onListener);
    emitter.off(event, keep);
    // The listener is added after this, and whoever adds it finishes first.
    setImmediate(() => {
      for (const args of early.splice(0)) (emitter as Server).emit(event, ...args);
    });
  };
  emitter.on(event, keep);
  emitter.on("newListener", onListener);
  emitter.once("close", () => {
    for (const [socket] of early.splice(0)) if (socket instanceof Socket) socket.destroy();
  });
}

/** As `pauseOnConnect`, for a connection that came from another process: reading has begun, but nothing was read in this turn of the event loop. */
function pauseAsAccepted(socket: Socket): void {
  const inside = socket as unknown as { readonly _handle: { reading: boolean; readStop(): void } | null };
  if (inside._handle !== null) {
    inside._handle.reading = false;
    inside._handle.readStop();
  }
  socket.allowHalfOpen = true;
  socket.setNoDelay(true).pause();
}

const close = (opened: OpenedSocket | TrilithError | undefined): void => {
  if (opened === undefined || opened instanceof TrilithError) return;
  if (opened.protocol === "tcp") opened.server.close();
  else opened.socket.close();
};

/** The errors of the child's sockets, in our words. */
function socketError({ protocol, host, port }: NamespaceSocket, code: string, message: string): TrilithError {
  const at = `${protocol.toUpperCase()} ${hostPort(host, port)}`;
  if (code === "EADDRNOTAVAIL" || code === "EAFNOSUPPORT")
    return new TrilithError("unsupported", `${at}: there is no address ${host} in that namespace`);
  const wrapped = wrap(Object.assign(new Error(message), { code }), `listening on ${at}`);
  return wrapped.code === "not-allowed" ? new TrilithError("not-allowed", `${wrapped.message}; ${RIGHTS}`) : wrapped;
}

/** Starts the child in the namespace and takes what it hands over. */
function take(
  command: readonly string[],
  doing: string,
  namespace: string,
  wanted: readonly NamespaceSocket[],
  signal: AbortSignal | undefined,
): Promise<readonly (OpenedSocket | TrilithError)[]> {
  const [file = "", ...args] = command;
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !NOT_FOR_THE_CHILD.test(name)));
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const child = spawn(file, [...args, JSON.stringify(wanted)], { env, stdio: ["ignore", "ignore", "pipe", "ipc"] });
    const answers: (OpenedSocket | TrilithError | undefined)[] = wanted.map(() => undefined);
    const early: unknown[][][] = wanted.map(() => []);
    let stderr = "";
    let failure: unknown;
    let done = false;
    const fail = (error: unknown): void => {
      failure ??= error;
      child.kill("SIGKILL");
    };
    const late = setTimeout(
      () => fail(new TrilithError("timeout", `${doing}: not done after ${DEADLINE_MS} ms`)),
      DEADLINE_MS,
    );
    const onAbort = (): void => fail(signal?.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    child.stderr?.on("data", (chunk: Buffer) => {
      stderr = (stderr + chunk.toString()).slice(-STDERR_MAX_BYTES);
    });
    child.on("message", (message, handle) => {
      const said = message as ChildSays;
      if (said.what === "in") {
        if (said.namespace !== namespace)
          fail(new TrilithError("not-found", `${doing}: it is in ${said.namespace} now, not in ${namespace}`));
      } else if (said.what === "done") done = true;
      else if (said.what === "failed") {
        const asked = wanted[said.index] as NamespaceSocket;
        answers[said.index] = socketError(asked, said.code, said.message);
      } else if (said.what === "early") {
        if (handle instanceof Socket) {
          pauseAsAccepted(handle);
          early[said.index]?.push([handle]);
        }
      } else if (handle instanceof Server) {
        // The same socket with our options; the server that came is an empty shell from now on.
        const server = createServer({ pauseOnConnect: true, allowHalfOpen: true, noDelay: true }).listen(handle);
        keepUntilHeard(server, "connection", early[said.index] ?? []);
        answers[said.index] = { protocol: "tcp", server };
      } else if (handle !== undefined) {
        const socket = handle as DatagramSocket;
        // ICMP errors for earlier replies surface here; they say nothing about this socket.
        socket.on("error", () => {});
        keepUntilHeard(socket, "message", early[said.index] ?? []);
        answers[said.index] = { protocol: "udp", socket };
      }
    });
    const end = (): void => {
      clearTimeout(late);
      signal?.removeEventListener("abort", onAbort);
    };
    child.once("error", (error: NodeJS.ErrnoException) => {
      end();
      reject(
        error.code === "ENOENT"
          ? new TrilithError(
              "unsupported",
              `${doing}: ${file} is missing on this host (it is part of util-linux)`,
              error,
            )
          : wrap(error, doing),
      );
    });
    child.once("close", (exitCode) => {
      end();
      if (done && failure === undefined) {
        resolve(
          answers.map((answer) => answer ?? new TrilithError("internal", `${doing}: a socket was not handed over`)),
        );
        return;
      }
      for (const answer of answers) close(answer);
      for (const [socket] of early.flat()) if (socket instanceof Socket) socket.destroy();
      reject(failure ?? refusal(doing, stderr, exitCode));
    });
  });
}

/** The namespaces of this host's kernel; entered by nsenter (util-linux or BusyBox), except this process's own. */
export const systemNamespaceSockets: NamespaceSockets = {
  namespaceOf: (pid) => namespaceOf(pid),
  ownNamespace: () => readlink("/proc/self/ns/net"),
  async open({ pid, namespace }, wanted, signal) {
    signal?.throwIfAborted();
    if (wanted.length === 0) return [];
    const doing = `entering the network namespace of process ${pid}`;
    const own = await readlink("/proc/self/ns/net");
    const command = [...(namespace === own ? [] : await entering(pid)), ...childCommand()];
    return await take(command, doing, namespace, wanted, signal);
  },
};
