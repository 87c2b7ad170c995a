// What opening connections ahead saves: a program that knows nothing of Trilith connects over links of several delays, without the hook, with it, and with
// connections opened ahead, in turns of one run. Needs root for network namespaces of its own.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { hookLibrary } from "../src/base/native-build.ts";
import { encodeHookTable } from "../src/wire/hook-table-encode.ts";
import { havePrograms, ownFolder } from "../test/support/peers.ts";

const run = promisify(execFile);
const ROUNDS = Number(process.env["BENCH_ROUNDS"] ?? 5);
const RUN_MS = Number(process.env["BENCH_RUN_MS"] ?? 2_000);
const ROUND_TRIPS_MS = [1, 10, 40];
const PAUSE_US = 1_000;
const CLIENT = "10.79.0.1";
const SERVER = "10.79.0.2";

await havePrograms("cc", "ip");
const folder = await ownFolder("bench-prefetch");
const undo: (() => Promise<unknown>)[] = [() => folder.remove()];

async function compiled(name: string): Promise<string> {
  const program = join(folder.path, name);
  await run("cc", ["-O2", join(import.meta.dirname, `${name}.c`), "-o", program]);
  return program;
}

/** Starts a program that says one line when it is ready and ends with its standard input. */
async function started(command: readonly string[]): Promise<{ readonly line: string; stop(): Promise<void> }> {
  const child: ChildProcess = spawn(command[0] as string, command.slice(1), { stdio: ["pipe", "pipe", "inherit"] });
  const ended = once(child, "exit");
  const first = await Promise.race([once(child.stdout as NodeJS.ReadableStream, "data"), ended]);
  if (!Buffer.isBuffer(first[0])) throw new Error(`${command.join(" ")} ended with ${first[0]}`);
  return {
    line: String(first[0]).trim(),
    stop: async () => {
      child.stdin?.end();
      await ended;
    },
  };
}

const names = ["a", "b"].map((end) => `tlp${process.pid}${end}`) as [string, string];
const [near, far] = names;
const inside = (space: string, ...words: string[]): string[] => ["ip", "netns", "exec", space, ...words];

/** Gives a namespace's end of the wire its address, and the wire's packets their way. */
async function addressed(space: string, own: string, other: string): Promise<void> {
  await run("ip", ["-n", space, "addr", "add", own, "peer", other, "dev", "wire"]);
  await run("ip", ["-n", space, "link", "set", "wire", "up"]);
}

/** A wire between the namespaces with half of the round trip in each direction; told how it is delayed. */
async function wire(roundTripMs: number, link: string): Promise<{ readonly how: string; cut(): Promise<void> }> {
  const half = (roundTripMs * 1000) / 2;
  await run("ip", ["-n", near, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", far]);
  const netem = ["root", "netem", "delay", `${half}us`, "limit", "10000"];
  try {
    for (const space of names) await run("tc", ["-n", space, "qdisc", "add", "dev", "wire", ...netem]);
  } catch {
    // This kernel has no netem.
    await run("ip", ["-n", near, "link", "del", "wire"]);
    const carrier = await started([link, ...names.map((name) => `/run/netns/${name}`), String(half)]);
    await addressed(near, CLIENT, SERVER);
    await addressed(far, SERVER, CLIENT);
    return {
      how: "delayed by a program between two TUN devices, as this kernel has no netem",
      cut: () => carrier.stop(),
    };
  }
  await addressed(near, CLIENT, SERVER);
  await addressed(far, SERVER, CLIENT);
  return {
    how: "delayed by tc netem",
    cut: async () => {
      await run("ip", ["-n", near, "link", "del", "wire"]);
    },
  };
}

const at = (sorted: readonly number[], share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
const ms = (us: number): string => (us / 1000).toFixed(us < 10_000 ? 3 : 2);

try {
  const [link, times, library] = [
    await compiled("_delayed-link"),
    await compiled("_connect-times"),
    await hookLibrary("glibc"),
  ];
  for (const name of names) {
    await run("ip", ["netns", "add", name]);
    undo.push(() => run("ip", ["netns", "del", name]));
    await run("ip", ["-n", name, "link", "set", "lo", "up"]);
  }
  const server = await started(inside(far, times, "serve"));
  undo.push(() => server.stop());
  const table = join(folder.path, "table");
  await mkdir(join(folder.path, "observed"));
  await chmod(join(folder.path, "observed"), 0o1777);
  const service = {
    policy: "p2c",
    panic: false,
    held: false,
    tryMs: 1_000,
    backends: [{ address: SERVER, port: Number(server.line), weight: 1, tier: 2, suspect: false }],
  } as const;
  const bytes = encodeHookTable({
    generation: 1,
    writtenAtMs: Date.now(),
    superseded: false,
    v4: { base: 0x7f80_0000, bits: 9 },
    v6: { prefix: Uint8Array.from([0xfd, ...Array<number>(15).fill(0)]), bits: 96 },
    domain: "consul",
    services: [
      { ...service, slot: 1, subject: "web", names: ["web.service.consul"] },
      { ...service, slot: 2, subject: "ahead", names: ["ahead.service.consul"], prefetch: { most: 2, idleMs: 10_000 } },
    ],
  });
  await writeFile(table, bytes, { mode: 0o644 });
  const hook = ["env", `LD_PRELOAD=${library}`, `TRILITH_HOOK_TABLE=${table}`];
  const ways: readonly (readonly [name: string, words: readonly string[], host: string, port: string])[] = [
    ["not hooked", [], SERVER, server.line],
    ["hooked", hook, "127.128.0.1", "80"],
    ["hooked, opened ahead", hook, "127.128.0.2", "80"],
  ];
  for (const roundTripMs of ROUND_TRIPS_MS) {
    const { how, cut } = await wire(roundTripMs, link);
    try {
      const connects = Math.max(20, Math.min(400, Math.round(RUN_MS / (roundTripMs * 2 + 1.5))));
      const connectUs = ways.map((): number[] => []);
      const wholeUs = ways.map((): number[] => []);
      const medians = ways.map((): number[] => []);
      for (let round = 0; round < ROUNDS; round++)
        for (const [i, [, words, host, port]] of ways.entries()) {
          const command = inside(near, ...words, times, host, port, String(connects), String(PAUSE_US));
          const { stdout } = await run(command[0] as string, command.slice(1), { maxBuffer: 1 << 24 });
          const lines = stdout
            .trim()
            .split("\n")
            .map((line) => line.split(" ").map(Number) as [number, number]);
          if (lines.length !== connects) throw new Error(`${connects} connects were asked for, ${lines.length} made`);
          connectUs[i]?.push(...lines.map(([connect]) => connect));
          wholeUs[i]?.push(...lines.map(([, whole]) => whole));
          medians[i]?.push(
            at(
              lines.map(([connect]) => connect).sort((a, b) => a - b),
              0.5,
            ),
          );
        }
      console.log(
        `round trip ${roundTripMs} ms, ${how}; ${ROUNDS} rounds of ${connects} connects each, one after the other`,
      );
      for (const [i, [name]] of ways.entries()) {
        const sorted = (connectUs[i] as number[]).sort((a, b) => a - b);
        const whole = (wholeUs[i] as number[]).sort((a, b) => a - b);
        const rounds = (medians[i] as number[]).sort((a, b) => a - b);
        console.log(
          `  ${name.padEnd(21)} connect ${ms(at(sorted, 0.5))} ms (5 to 95 %: ${ms(at(sorted, 0.05))} to ${ms(at(sorted, 0.95))}; medians of rounds ${ms(rounds[0] as number)} to ${ms(rounds.at(-1) as number)}), with question and answer ${ms(at(whole, 0.5))} ms`,
        );
      }
      const [, plain, ahead] = connectUs as [number[], number[], number[]];
      const saved = at(plain, 0.5) - at(ahead, 0.5);
      console.log(
        `  saved by opening ahead: ${ms(saved)} ms of each connect (${((saved / at(plain, 0.5)) * 100).toFixed(0)} %)`,
      );
    } finally {
      await cut();
    }
  }
} finally {
  for (const step of undo.reverse()) await step();
}
