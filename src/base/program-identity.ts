// Who runs which program: a name for callers that is the same after a restart.
import { basename } from "node:path";

/** User and program as text. */
export function programIdentity(): string {
  return `${process.geteuid?.() ?? ""}/${basename(process.argv[1] ?? "")}`;
}
