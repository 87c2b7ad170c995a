// Agents without a server on a LAN of namespaces: from a host that vanishes to answers without it, and from its return to answers with it.
// Run as root after a build: npx tsx bench/peers-mode.ts [runs]
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { startLan } from "../test/support/lan.ts";
import { ownFolder } from "../test/support/peers.ts";
import { Member } from "../test/support/peers-mode.ts";

const runs = Number(process.argv[2] ?? 10);
const folder = await ownFolder("bench-peers");
const lan = await startLan(["alpha", "beta", "gamma"]);
const config = join(folder.path, "peers.json");
await writeFile(config, JSON.stringify({ peers_key: "what all of this LAN share" }));
const flags = ["--config-file", config, "--peers", lan.hosts.map(({ address }) => address).join(",")];
const all = lan.hosts.map((host) => new Member(host, folder.path, flags));
const [a, b, c] = all as [Member, Member, Member];

/** Milliseconds until both others answer so. */
async function until(hosts: string, began = performance.now()): Promise<number> {
  await Promise.all([a.sees(hosts), b.sees(hosts)]);
  return performance.now() - began;
}
const told = (what: string, all: readonly number[]): void => {
  const sorted = all.map(Math.round).sort((x, y) => x - y);
  const median = sorted[Math.floor(sorted.length / 2)];
  console.log(`${what}: median ${median} ms, worst ${sorted.at(-1)} ms (${sorted.join(" ")})`);
};

try {
  await Promise.all(all.map((one) => one.start()));
  await until("alpha beta gamma");
  const ways: readonly [string, () => Promise<void>, () => Promise<void>][] = [
    ["its cable is pulled", () => c.host.unplug(), () => c.host.plug()],
    ["it hangs (SIGSTOP)", async () => c.signal("SIGSTOP"), async () => c.signal("SIGCONT")],
    ["it is killed (SIGKILL)", () => c.stop("SIGKILL"), () => c.start()],
    ["it is stopped (SIGTERM)", () => c.stop("SIGTERM"), () => c.start()],
  ];
  for (const [what, vanish, back] of ways) {
    const gone: number[] = [];
    const returned: number[] = [];
    for (let run = 0; run < runs; run++) {
      const began = performance.now();
      const vanishing = vanish();
      gone.push(await until("alpha beta", began));
      await vanishing;
      const beganBack = performance.now();
      const coming = back();
      returned.push(await until("alpha beta gamma", beganBack));
      await coming;
    }
    told(`${what}: out of the answers of both others`, gone);
    told(`${what}: back in them (with the start of the program, where it ended)`, returned);
  }
} finally {
  await Promise.all(all.map((one) => one.stop("SIGKILL")));
  await lan.stop();
  await folder.remove();
}
