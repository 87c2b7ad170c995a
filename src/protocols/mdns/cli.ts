// The command lines of this folder: what stands in for avahi-browse, avahi-publish and avahi-resolve, and waiting for something on the LAN.
import { systemClock } from "../../base/clock.ts";
import { callbackLog } from "../../base/log.ts";
import { systemNet } from "../../base/net.ts";
import { systemProcesses } from "../../base/process.ts";
import { systemRandom } from "../../base/random.ts";
import * as browsing from "./cli/browse.ts";
import type { Machine, Shell } from "./cli/machine.ts";
import * as publishing from "./cli/publish.ts";
import * as resolving from "./cli/resolve.ts";
import * as waiting from "./cli/wait.ts";
import { createMdns } from "./engine.ts";

export { formatGoDuration, parseGoDuration } from "../../wire/duration.ts";

export type { Arrived, Awaited } from "./cli/wait.ts";

const PORT = 5353;

/** This machine; what the engine has to say goes to standard error. */
function machineFor(err: (text: string) => void): Machine {
  return {
    clock: systemClock,
    isCrowded: async () => !(await systemNet.isUdpPortFree(PORT)),
    mdns: () =>
      createMdns({
        clock: systemClock,
        random: systemRandom,
        net: systemNet,
        log: callbackLog((level, _part, text) => {
          if (level === "warn" || level === "error") err(`${text}\n`);
        }),
        hostName: systemProcesses.hostname(),
        brief: true,
      }),
  };
}

/** `trilith browse` and avahi-browse. @returns the exit code */
export function browse(words: readonly string[], shell: Shell): Promise<number> {
  return browsing.browse(words, shell, machineFor(shell.err));
}

/** `trilith publish` and avahi-publish. @returns the exit code */
export function publish(words: readonly string[], shell: Shell): Promise<number> {
  return publishing.publish(words, shell, machineFor(shell.err));
}

/** avahi-resolve. @returns the exit code */
export function resolve(words: readonly string[], shell: Shell): Promise<number> {
  return resolving.resolve(words, shell, machineFor(shell.err));
}

/** `trilith wait _http._tcp`. @throws InputError for a type that is none */
export function awaitOnLan(
  awaited: waiting.Awaited,
  shell: Pick<Shell, "signal" | "err">,
): Promise<waiting.Arrived | "timeout" | "stopped"> {
  return waiting.awaitOnLan(awaited, shell, machineFor(shell.err));
}
