// A real PostgreSQL of a test's own; as root it runs as its package's user, because it refuses to be root.
import { execFile } from "node:child_process";
import { chown, mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { eventually, freePort, startProgram } from "./peers.ts";

const run = promisify(execFile);
const PROGRAMS = "/usr/lib/postgresql";

/** Starts one on loopback with the role `test`, which needs no password. */
export async function startPostgres(folder: string): Promise<{ readonly port: number; stop(): Promise<void> }> {
  const versions = (await readdir(PROGRAMS)).sort((a, b) => Number(b) - Number(a));
  const bin = join(PROGRAMS, versions[0] ?? "", "bin");
  const data = join(folder, "postgres");
  await mkdir(data, { mode: 0o700 });
  let as: string[] = [];
  if (process.getuid?.() === 0) {
    const id = async (what: string): Promise<number> => Number((await run("id", [what, "postgres"])).stdout);
    const [uid, gid] = [await id("-u"), await id("-g")];
    await chown(data, uid, gid);
    as = ["setpriv", `--reuid=${uid}`, `--regid=${gid}`, "--clear-groups"];
  }
  const command = (name: string, ...words: readonly string[]): string[] => [...as, join(bin, name), ...words];
  const [file = "", ...words] = command("initdb", "-D", data, "-U", "test", "--auth=trust", "--no-sync", "--no-locale");
  await run(file, words);
  const port = await freePort();
  const settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"].flatMap((each) => [
    "-c",
    each,
  ]);
  const server = await startProgram(
    command("postgres", "-D", data, "-p", String(port), ...settings),
    join(folder, "postgres.log"),
  );
  const ready = command("pg_isready", "-q", "-h", "127.0.0.1", "-p", String(port));
  await eventually("PostgreSQL answers", () => run(ready[0] ?? "", ready.slice(1)).then(() => true), 60_000).catch(
    async (error: unknown) => {
      await server.stop("SIGINT");
      throw error;
    },
  );
  // SIGINT: connections are closed, rather than waited for.
  return { port, stop: () => server.stop("SIGINT") };
}
