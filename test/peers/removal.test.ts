// What docs/removal.md says takes everything away: its commands are run in a mount namespace of their own, in which all that an agent, the hook and the wiring wrote is seen.
import { execFile } from "node:child_process";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { freePort, havePrograms, ownFolder } from "../support/peers.ts";
import { program } from "../support/program.ts";

const able = (await havePrograms("unshare", "curl", "cc")) && process.getuid?.() === 0;

/** The document's commands, but for the ones that are other programs' own: those are stood in for. */
async function commandsOf(document: string): Promise<string> {
  const text = await readFile(resolve(import.meta.dirname, "../..", document), "utf8");
  return [...text.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block]) => block).join("\n");
}

/** Runs in the namespace: every folder that may be written to is laid over, so that what was written lies apart. */
const script = (commands: string, port: number, dnsPort: number, otherPort: number): string => `
set -eu
mount --make-rprivate /
layers=/mnt
mount -t tmpfs tmpfs "$layers"
export HOME=/root TRILITH_HTTP_ADDR=127.0.0.1:${port}
unset XDG_CACHE_HOME XDG_DATA_HOME TMPDIR
for folder in run var/lib var/cache etc root usr/local tmp; do
  own="$layers/$(echo $folder | tr / _)"
  mkdir -p "$own/upper" "$own/work"
  mount -t overlay overlay -o "lowerdir=/$folder,upperdir=$own/upper,workdir=$own/work" "/$folder"
done
# What was removed of the system's own leaves a character device in the layer.
written() { (cd "$layers" && find */upper -mindepth 1 ! -type d ! -type c | sort); }
mkdir -p /usr/local/bin
cp "$1"/* /usr/local/bin
ln -s "$2" /usr/local/bin/trilith
export PATH="/usr/local/bin:$PATH"
written > "$layers/before"
trilith agent -hook-table /run/trilith/table -http-port ${port} -dns-port ${dnsPort} -docker-host off > "$layers/log" 2>&1 &
agent=$!
until trilith doctor > "$layers/doctor" 2>&1 || grep -q '^Trilith' "$layers/doctor"; do sleep 0.2; done
trilith agent -dev -http-port ${otherPort} -dns-port -1 -docker-host off > /dev/null 2>&1 &
dev=$!
until curl -sf http://127.0.0.1:${otherPort}/v1/trilith/hook > /dev/null; do sleep 0.2; done
kill -KILL $dev
wait $dev || true
trilith hook -- curl -sf http://consul.service.consul:${port}/v1/status/leader > /dev/null
trilith hook --print
trilith dns setup resolved --apply
trilith dns setup docker --address 172.17.0.1 --apply
trilith link --dir /usr/local/bin avahi-browse
touch /etc/systemd/system/trilith.service
echo "--- written"
written | comm -13 "$layers/before" -
echo "--- removal"
cd /
# Where there is nothing to put back a command says so by its end as well.
set +e
${commands}
set -e
wait $agent
echo "--- left"
written | comm -3 "$layers/before" -
echo "--- end"
`;

describe.runIf(able)("docs/removal.md", () => {
  it("leaves nothing of what was there", { timeout: 120_000 }, async () => {
    const folder = await ownFolder("removal");
    try {
      const stand = join(folder.path, "programs");
      await mkdir(stand);
      const files = {
        // These belong to the system, and change nothing of ours.
        ...{ systemctl: "#!/bin/sh\n", docker: "#!/bin/sh\n", npm: "#!/bin/sh\n" },
      };
      for (const [name, text] of Object.entries(files)) {
        await writeFile(join(stand, name), text);
        await chmod(join(stand, name), 0o755);
      }
      const commands = await commandsOf("docs/removal.md");
      const [port, dnsPort, otherPort] = [await freePort(), await freePort(), await freePort()];
      const all = await new Promise<string>((done) =>
        execFile(
          "unshare",
          [
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            "-c",
            script(commands, port, dnsPort, otherPort),
            "bash",
            stand,
            program,
          ],
          { timeout: 100_000, killSignal: "SIGKILL" },
          (error, out, wrong) => done(`${out}\n${wrong}${error === null ? "" : `\n${error.message.slice(-200)}`}`),
        ),
      );
      const [, written = "", left = "nothing was told"] =
        /--- written\n(.*?)--- removal\n.*--- left\n(.*)--- end/s.exec(all) ?? [];
      for (const path of [
        "run/upper/trilith/table",
        "etc/upper/docker/daemon.json",
        "etc/upper/systemd/resolved.conf.d/trilith.conf",
        "usr_local/upper/bin/avahi-browse",
        "var_cache/upper/trilith/libtrilith-glibc.so",
        "tmp/upper/trilith-hook-",
        "var_lib/upper/trilith/",
      ])
        expect(written, all).toContain(path);
      expect(left.trim(), all).toBe("");
    } finally {
      await folder.remove();
    }
  });
});
