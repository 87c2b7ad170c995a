// Where an agent keeps its data unless it is told.
import { systemProcesses } from "../base/process.ts";
import type { Io } from "./io.ts";

/** The system's place for root, else the user's. */
export function dataFolder(io: Pick<Io, "env">): string {
  if (systemProcesses.userName() === "root") return "/var/lib/trilith";
  const home = io.env("XDG_DATA_HOME") ?? `${io.env("HOME") ?? "."}/.local/share`;
  return `${home}/trilith`;
}
