// What was written where, kept on disk: a backend cannot tell whose an entry is, and a restart must neither forget nor repeat anything.
import { createHash } from "node:crypto";
import { dirname } from "node:path";
import type { Disk } from "../../../base/disk.ts";
import { messageOf } from "../../../base/error.ts";

/** Place → the fingerprint of what was last written there; "" = about to be written. */
export interface Memory {
  readonly places: Map<string, string>;
  /** Puts the present state on disk, if it is another one than before. Never rejects: what goes wrong is told once. */
  save(): Promise<void>;
}

const VERSION = 1;

/** Opens the memory at a path; one that is missing or damaged is empty. @param path undefined = nothing is kept beyond this run */
export async function openMemory(path: string | undefined, disk: Disk, say: (text: string) => void): Promise<Memory> {
  const places = new Map<string, string>();
  let saved = "";
  let told = false;
  if (path !== undefined) {
    try {
      saved = await disk.readText(path);
      const raw = JSON.parse(saved) as { readonly version?: unknown; readonly places?: unknown };
      if (raw.version === VERSION && typeof raw.places === "object" && raw.places !== null)
        for (const [place, print] of Object.entries(raw.places)) places.set(place, String(print));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT")
        say(`${path} cannot be read, what was registered before is not known: ${messageOf(error)}`);
    }
  }
  return {
    places,
    async save() {
      if (path === undefined) return;
      const text = `${JSON.stringify({ version: VERSION, places: Object.fromEntries([...places].sort(([a], [b]) => (a < b ? -1 : 1))) }, undefined, 1)}\n`;
      if (text === saved) return;
      try {
        await disk.makeFolder(dirname(path));
        await disk.replace(path, text, 0o600);
        saved = text;
      } catch (error) {
        if (!told)
          say(
            `what is registered cannot be remembered over restarts (TRILITH_REGISTRATOR_STATE names another place): ${messageOf(error)}`,
          );
        told = true;
      }
    },
  };
}

/** A short name for a text. */
export function fingerprint(text: string): string {
  return createHash("sha256").update(text).digest("base64url").slice(0, 22);
}
