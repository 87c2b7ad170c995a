// A real program with connections opened ahead: servers that speak first, and servers that end what waits too long.
import { execFile } from "node:child_process";
import { chmod, mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { encodeHookTable } from "../../src/wire/hook-table-encode.ts";
import { havePrograms } from "../support/peers.ts";

const run = promisify(execFile);
const here = await havePrograms("cc", "python3");

const ending: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ending.splice(0)) await end();
});

/** A mail server of the smallest kind; tells how many connections it got and how many of them said something. */
async function mailServer(idleMs = 60_000): Promise<{
  readonly port: number;
  readonly accepted: () => number;
  readonly spoken: () => number;
}> {
  const sockets = new Set<Socket>();
  let accepted = 0;
  let spoken = 0;
  const server = createServer((socket) => {
    accepted++;
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket)).on("error", () => undefined);
    socket.setTimeout(idleMs, () => socket.end("421 you said nothing for too long\r\n"));
    socket.write(`220 mail.example says hello to number ${accepted}\r\n`);
    let said = false;
    socket.on("data", (bytes) => {
      if (!said) spoken++;
      said = true;
      for (const line of String(bytes).trim().split("\r\n"))
        if (line === "quit" || line === "QUIT") socket.end("221 bye\r\n");
        else socket.write("250 fine\r\n");
    });
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  ending.push(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((done) => server.close(done));
  });
  return { port: (server.address() as AddressInfo).port, accepted: () => accepted, spoken: () => spoken };
}

/** As many mail sessions as told, one after the other, with Python's own library: prints the number that each greeting tells. */
const PYTHON = `
import smtplib, sys, time
for i in range(int(sys.argv[1])):
    session = smtplib.SMTP()
    code, text = session.connect("mail.service.consul", 25)
    assert code == 220, (code, text)
    print(text.decode().split()[-1], flush=True)
    assert session.noop()[0] == 250
    assert session.quit()[0] == 221
    time.sleep(float(sys.argv[2]))
`;

describe.runIf(here)("Python's smtplib", () => {
  let folder = "";
  let library = "";
  let own = "";
  const table = (): string => join(own, "table");
  const put = async (
    ports: readonly number[],
    prefetch: { most: number; idleMs: number } | undefined,
  ): Promise<void> => {
    const bytes = encodeHookTable({
      generation: Date.now(),
      writtenAtMs: Date.now(),
      superseded: false,
      v4: { base: 0x7f80_0000, bits: 9 },
      v6: { prefix: Uint8Array.from([0xfd, ...Array<number>(15).fill(0)]), bits: 96 },
      domain: "consul",
      services: [
        {
          slot: 1,
          subject: "mail",
          names: ["mail.service.consul"],
          policy: "p2c",
          panic: false,
          held: false,
          tryMs: 1_000,
          ...(prefetch === undefined ? {} : { prefetch }),
          backends: ports.map((port) => ({ address: "127.0.0.1", port, weight: 1, tier: 0, suspect: false })),
        },
      ],
    });
    await writeFile(`${table()}.new`, bytes, { mode: 0o644 });
    await rename(`${table()}.new`, table());
  };
  const sessions = async (count: number, pauseS = 0): Promise<number[]> => {
    const env = { ...process.env, LD_PRELOAD: library, TRILITH_HOOK_TABLE: table() };
    const { stdout } = await run("python3", ["-c", PYTHON, String(count), String(pauseS)], { env, timeout: 60_000 });
    return stdout.trim().split("\n").map(Number);
  };

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "trilith-ahead-"));
    library = join(folder, "libtrilith.so");
    const source = resolve(import.meta.dirname, "../../native/libtrilith.c");
    // On loopback no connect takes long enough for opening ahead.
    await run("cc", ["-shared", "-fPIC", "-O2", "-DPREFETCH_WORTH_US=0", "-o", library, source, "-lpthread", "-ldl"]);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));
  beforeEach(async () => {
    own = await mkdtemp(join(folder, "test-"));
    await mkdir(join(own, "observed"));
    await chmod(join(own, "observed"), 0o1777);
  });

  it("gets each greeting once and whole, from connections that were there already", async () => {
    const mail = await mailServer();
    await put([mail.port], { most: 2, idleMs: 10_000 });
    const greeted = await sessions(20);
    expect(new Set(greeted).size).toBe(20);
    expect(mail.spoken()).toBe(20);
    // One waited when the program ended, two at most.
    expect(mail.accepted()).toBeGreaterThan(20);
    expect(mail.accepted()).toBeLessThanOrEqual(22);
  });

  it("opens nothing ahead where nobody asked for it", async () => {
    const mail = await mailServer();
    await put([mail.port], undefined);
    expect(await sessions(10)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    expect(mail.accepted()).toBe(10);
  });

  it("does not notice a server that ends what waits too long", async () => {
    const mail = await mailServer(500);
    await put([mail.port], { most: 1, idleMs: 10_000 });
    expect(await sessions(6, 1.2)).toHaveLength(6);
    expect(mail.spoken()).toBe(6);
    // Each of those that waited was ended with words, and given up for a new one.
    expect(mail.accepted()).toBeGreaterThan(8);
  });
});
