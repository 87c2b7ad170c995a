// Agents without a server that find each other on a LAN by mDNS, with a shared key and nothing else: as the README of the protocol says.
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { haveLan, type Lan, startLan } from "../support/lan.ts";
import { triedBefore } from "../support/own-name.ts";
import { eventually, havePrograms, ownFolder } from "../support/peers.ts";
import { Member } from "../support/peers-mode.ts";

const here = (await haveLan()) && (await havePrograms("dig"));

const readme = readFileSync(new URL("../../src/protocols/peers/README.md", import.meta.url), "utf8");
/** The text of the code block behind `<!-- example: name -->`. */
function example(name: string): string {
  const text = new RegExp(`<!-- example: ${name} -->\\n+\`\`\`\\w+\\n([\\s\\S]*?)\`\`\``).exec(readme)?.[1];
  if (text === undefined) throw new Error(`the README has no example "${name}"`);
  return text;
}

describe.skipIf(!here)("agents without a server that find each other on a LAN", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let lan: Lan;
  let all: Member[];

  beforeAll(async () => {
    folder = await ownFolder("peers-lan");
    lan = await startLan(["alpha", "beta", "gamma", "stranger"], "10.79.0");
    const [ours, theirs] = [join(folder.path, "ours.json"), join(folder.path, "theirs.json")];
    await writeFile(ours, example("config"));
    await writeFile(theirs, JSON.stringify({ peers: "lan", peers_key: "what others of this LAN share" }));
    const [word, command, ...flags] = example("lan").replace("/etc/trilith/peers.json", ours).trim().split(" ");
    expect([word, command]).toEqual(["trilith", "agent"]);
    all = lan.hosts.map(
      (host) => new Member(host, folder.path, host.name === "stranger" ? ["--config-file", theirs] : flags),
    );
    await Promise.all(all.map((one) => one.start()));
  }, 180_000);
  beforeEach(async (context) => {
    if (!triedBefore(context)) return;
    await lan.heal();
    await Promise.all(all.map((one) => one.startAnew()));
  });
  afterAll(async () => {
    await Promise.all((all ?? []).map((one) => one.stop("SIGKILL")));
    await lan?.stop();
    await folder?.remove();
  });

  it("finds whoever has the key, keeps to itself before whoever has not, and says so", async () => {
    const [a, b, c, stranger] = all as [Member, Member, Member, Member];
    await Promise.all([a, b, c].map((one) => one.sees("alpha beta gamma")));
    expect(await c.dns()).toBe("10.79.0.1 10.79.0.2 10.79.0.3");
    await eventually("the stranger is told", async () =>
      /peers_key\) is not this agent's/.test((await stranger.trilith("doctor")).out),
    );
    expect(await stranger.web()).toBe("stranger");
    for (const line of example("look").trim().split("\n")) {
      const [, ...words] = line.split(" ");
      const { exitCode, out, err } = await b.trilith(...words);
      // The doctor has something to tell: there is a stranger.
      expect([exitCode, err], line).toEqual([words[0] === "doctor" ? 1 : 0, ""]);
      expect(out, line).toMatch(/alpha|gamma|web/);
    }
    expect(await a.members()).toBe("alpha:alive beta:alive gamma:alive");
  });

  it("loses who is killed or cut off, and finds it again, at another address too", async () => {
    const [a, b, c] = all as [Member, Member, Member, Member];
    await Promise.all([a, b, c].map((one) => one.sees("alpha beta gamma")));
    await c.stop("SIGKILL");
    await Promise.all([a.sees("alpha beta"), b.sees("alpha beta")]);
    await c.run("ip", "address", "flush", "dev", "eth0");
    await c.run("ip", "address", "add", "10.79.0.33/24", "dev", "eth0");
    Object.assign(c.host, { address: "10.79.0.33" });
    await c.start();
    await Promise.all([a, b, c].map((one) => one.sees("alpha beta gamma")));
    await eventually("by its new address", async () => (await a.dns("gamma.node.consul")) === "10.79.0.33");
    await lan.split([b.host]);
    await a.sees("alpha gamma");
    await lan.heal();
    await Promise.all([a, b, c].map((one) => one.sees("alpha beta gamma")));
  });

  it("says goodbye and is found again when it starts", async () => {
    const [a, b] = all as [Member, Member, Member, Member];
    await a.sees("alpha beta gamma");
    await b.stop("SIGTERM");
    expect(await a.web()).toBe("alpha gamma");
    await b.start();
    await a.sees("alpha beta gamma");
  });
});
