// The terminal: standard input and output, the environment and the signals of this process, as commands see them.
import { readFileSync } from "node:fs";

export interface Terminal {
  out(text: string): void;
  err(text: string): void;
  env(name: string): string | undefined;
  /** Standard input as bytes, to its end. */
  stdin(): Promise<Uint8Array>;
  /** Aborted by the first SIGINT or SIGTERM; a second one ends the process. */
  readonly signal: AbortSignal;
  readonly terminal: boolean;
  /** Lets go of SIGINT and SIGTERM, for a command that handles them itself; `signal` is not aborted any more. */
  close(): void;
}

/** This process's own terminal. A reader that went away (`trilith list | head`) ends the process quietly. */
export function processIo(): Terminal {
  const controller = new AbortController();
  const stop = (signal: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(130);
    controller.abort(new Error(`ended by ${signal}`));
  };
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));
  return {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    env: environment,
    async stdin() {
      const chunks: Buffer[] = [];
      for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
      return Buffer.concat(chunks);
    },
    signal: controller.signal,
    terminal: process.stdout.isTTY === true,
    close() {
      process.off("SIGINT", stop);
      process.off("SIGTERM", stop);
    },
  };
}

/** Calls back on each SIGHUP until closed. */
export function onHangup(callback: () => void): { close(): void } {
  process.on("SIGHUP", callback);
  return { close: () => void process.off("SIGHUP", callback) };
}

/** The version in the package's own package.json. */
export function packageVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

/** A variable of the environment; undefined where unset or empty. */
export function environment(name: string): string | undefined {
  return process.env[name] === "" ? undefined : process.env[name];
}
