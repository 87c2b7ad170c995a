// Which living processes have a file: by their environments, which their children get, and by what they have mapped.
import { readFile } from "node:fs/promises";
import { systemProcessTable } from "./process-table.ts";

/** Environments and maps of ordinary processes are far below. */
const MOST_BYTES = 4 << 20;
const PATIENCE_MS = 5_000;

/**
 * Those of the texts (paths) that stand in the environment or among the mapped files of a living process; all of them where that cannot be told. Of other users'
 * processes only root is told.
 */
export async function namedByProcesses(texts: readonly string[]): Promise<ReadonlySet<string>> {
  if (texts.length === 0 || !systemProcessTable.here()) return new Set(texts);
  const found = new Set<string>();
  const look = async (): Promise<void> => {
    for (const pid of await systemProcessTable.pids()) {
      const environment = await systemProcessTable.environ(pid, MOST_BYTES);
      // Not allowed, or gone meanwhile: not this user's.
      const maps = await readFile(`/proc/${pid}/maps`, "latin1").catch(() => "");
      const all = `${environment instanceof Uint8Array ? Buffer.from(environment).toString("latin1") : ""}\n${maps}`;
      for (const text of texts) if (all.includes(Buffer.from(text).toString("latin1"))) found.add(text);
    }
  };
  // A process that hangs in the kernel holds up who reads its memory.
  let alarm: NodeJS.Timeout | undefined;
  const patience = new Promise<"late">((resolve) => {
    alarm = setTimeout(resolve, PATIENCE_MS, "late");
    alarm.unref();
  });
  try {
    return (await Promise.race([look(), patience])) === "late" ? new Set(texts) : found;
  } finally {
    clearTimeout(alarm);
  }
}
