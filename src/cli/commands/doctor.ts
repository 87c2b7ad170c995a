// `trilith doctor`: how this agent is, what it found, and what somebody should look at.
import { systemClock } from "../../base/clock.ts";
import { HOOK_FOLDERS, sweepTemporaryFolders } from "../../base/temporary-folder.ts";
import type { DoctorJson } from "../../index.ts";
import { type ClientOptions, clientFlags, jsonFlag, withClient } from "../client.ts";
import { ago, type Command, json, table } from "../io.ts";

/** What is wrong stands at the end of its line more often than not. */
const WHOLE = { whole: true };

/** Where it listens; all of HTTP's addresses in one line. */
function places({ "http-more": more, ...listening }: DoctorJson["listening"]): (readonly [string, string])[] {
  return Object.entries(listening).map(([name, where]) => [
    name,
    name === "http" && more !== undefined ? `${where}, ${more}` : where,
  ]);
}

function doctorText({ self, listening, sources, store, held, overrides, warnings, notes }: DoctorJson): string {
  const counts = Object.entries(store.counts).map(
    ([name, number]) => `${number} ${number === 1 ? name.replace(/s$/, "") : name}`,
  );
  return `Trilith ${self.version} · node ${self.node} · datacenter ${self.datacenter} · up ${ago(self.upMs)}

${table([
  ...places(listening).map(([name, where]) => [`  ${name}`, where]),
  [
    "  store",
    `${store.reachable ? `answers in ${store.roundTripMs ?? 0} ms` : `away: ${store.error ?? ""}`}${store.reachable && !store.writable ? ", refuses writes" : ""}, index ${store.index}`,
  ],
  ["  holds", counts.join(", ")],
])}
Sources
${table(
  sources.map(({ name, ok, text }) => [`  ${ok ? "·" : "!"} ${name}`, text]),
  WHOLE,
)}${
  held.length === 0
    ? ""
    : `\nHeld by the sharp-drop guard\n${table(
        held.map((one) => [`  ${one.service}`, one.text]),
        WHOLE,
      )}`
}${overrides.length === 0 ? "" : `\nOverridden\n${table(overrides.map((one) => [`  ${one.for}`, one.set.join(" "), `by ${one.by}`]))}`}
${notes.length === 0 ? "" : `Worth knowing\n${notes.map((text) => `  · ${text}\n`).join("")}\n`}${warnings.length === 0 ? "All is well.\n" : `To look at\n${warnings.map((text) => `  ! ${text}\n`).join("")}`}`;
}

export const command: Command = {
  name: "doctor",
  summary: "is this agent healthy, what did it find, what is wrong?",
  define(parser, io, done) {
    jsonFlag(clientFlags(parser))
      .addHelpText("after", "\nExit code 1 when something is broken; what is merely worth knowing is none.")
      .action(async (options: ClientOptions) => {
        // Also where no agent answers: perhaps it was that one.
        for (const path of await sweepTemporaryFolders(HOOK_FOLDERS, systemClock.now()))
          io.err(`Removed ${path}, which an agent that was killed had left.\n`);
        const answer = await withClient(options, io, (client) => client.get<DoctorJson>("/v1/trilith/doctor"));
        io.out(options.json ? json(answer) : doctorText(answer));
        done(answer.warnings.length === 0 ? 0 : 1);
      });
  },
};
