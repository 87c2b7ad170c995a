// Whether Avahi's daemon runs on this host: then the service files of its folder are its own to announce.
import type { Disk } from "../../base/disk.ts";
import type { Processes } from "../../base/process.ts";

const PID_FILE = "/run/avahi-daemon/pid";

/** True where the daemon's process is there. */
export async function avahiRuns(disk: Pick<Disk, "readText">, processes: Pick<Processes, "exists">): Promise<boolean> {
  const text = await disk.readText(PID_FILE).catch(() => "");
  const pid = Number(text.trim());
  return Number.isInteger(pid) && pid > 0 && processes.exists(pid);
}
