// A program's file before it is started: where a command is found, and what the file system says of it.
import { constants } from "node:fs";
import { access, open, stat } from "node:fs/promises";
import { isAbsolute, join } from "node:path";

/** This machine's processor, and the program that runs this one. */
export const machineArch: string = process.arch;
export const ownProgram: string = process.execPath;

/** A program's file. */
export interface ProgramFile {
  readonly path: string;
  /** True where the file changes the user or group of whoever starts it: the loader then takes no libraries from the environment [ld.so(8)]. */
  readonly changesUser: boolean;
  /** At most so many bytes from there; fewer where the file ends. @throws errno errors */
  read(at: number, bytes: number): Promise<Uint8Array>;
}

/** The file that a command means, found as execvp(3) does; undefined where there is none that may be executed. */
export async function findProgram(command: string, path: string | undefined): Promise<ProgramFile | undefined> {
  const folders = command.includes("/") ? [""] : (path ?? "/usr/local/bin:/usr/bin:/bin").split(":");
  for (const folder of folders) {
    const file = folder === "" ? command : join(isAbsolute(folder) ? folder : join(".", folder), command);
    try {
      await access(file, constants.X_OK);
      const found = await stat(file);
      if (!found.isFile()) continue;
      const uid = process.geteuid?.() ?? -1;
      const gid = process.getegid?.() ?? -1;
      return {
        path: file,
        changesUser:
          ((found.mode & 0o4000) !== 0 && found.uid !== uid) || ((found.mode & 0o2000) !== 0 && found.gid !== gid),
        async read(at, bytes) {
          const handle = await open(file, "r");
          try {
            const buffer = Buffer.alloc(bytes);
            const { bytesRead } = await handle.read(buffer, 0, bytes, at);
            return buffer.subarray(0, bytesRead);
          } finally {
            await handle.close();
          }
        },
      };
    } catch {
      // Not there, or not for this user: the next folder.
    }
  }
  return undefined;
}
