// Where an agent keeps its data unless it is told.
import { type Processes, systemProcesses } from "../base/process.ts";
import type { Io } from "./io.ts";

/** The system's place for root, else the user's; undefined for a user without a home folder. */
export function dataFolder(
  io: Pick<Io, "env">,
  processes: Pick<Processes, "userName" | "homeFolder"> = systemProcesses,
): string | undefined {
  if (processes.userName() === "root") return "/var/lib/trilith";
  const home = processes.homeFolder();
  const data = io.env("XDG_DATA_HOME") || (home && `${home}/.local/share`);
  return data && `${data}/trilith`;
}
