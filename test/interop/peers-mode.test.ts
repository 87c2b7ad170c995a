// Agents without a server on a LAN of network namespaces: what each has all answer; hosts that vanish, partitions, restarts, goodbyes.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { haveLan, type Lan, startLan } from "../support/lan.ts";
import { triedBefore } from "../support/own-name.ts";
import { havePrograms, ownFolder } from "../support/peers.ts";
import { Member } from "../support/peers-mode.ts";

const here = (await haveLan()) && (await havePrograms("dig"));

describe.skipIf(!here)("agents without a server", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let lan: Lan;
  let all: Member[];
  let a: Member;
  let b: Member;
  let c: Member;
  const everywhere = async (hosts: string): Promise<void> => {
    await Promise.all(all.map((one) => one.sees(hosts)));
  };

  beforeAll(async () => {
    folder = await ownFolder("peers-mode");
    lan = await startLan(["alpha", "beta", "gamma"]);
    const config = join(folder.path, "peers.json");
    await writeFile(config, JSON.stringify({ peers_key: "what all of this LAN share" }));
    const flags = ["--config-file", config, "--peers", lan.hosts.map(({ address }) => address).join(",")];
    all = lan.hosts.map((host) => new Member(host, folder.path, flags));
    [a, b, c] = all as [Member, Member, Member];
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

  it("answers HTTP, DNS and members for all on every host, and refuses keys and locks with the way to get them", async () => {
    await everywhere("alpha beta gamma");
    for (const one of all) {
      expect(await one.dns()).toBe("10.78.0.1 10.78.0.2 10.78.0.3");
      expect(await one.dns("beta.web.service.consul")).toBe("10.78.0.2");
      expect(await one.dns("gamma.node.consul")).toBe("10.78.0.3");
      expect(await one.members()).toBe("alpha:alive beta:alive gamma:alive");
    }
    const lines = (await b.trilith("members")).out.split("\n").map((line) => line.split(/ +/).slice(0, 3).join(" "));
    expect(lines.slice(1, 4)).toEqual(all.map(({ host }) => `${host.name} ${host.address}:8301 alive`));
    for (const words of [
      ["kv", "get", "a"],
      ["kv", "put", "a", "b"],
      ["lock", "a", "true"],
    ]) {
      const { exitCode, err } = await a.trilith(...words);
      expect(exitCode, words.join(" ")).not.toBe(0);
      expect(err).toMatch(/no keys, sessions and locks among agents without a server.*--join.*--etcd/);
    }
  });

  it("tells the health and the drain of instances", async () => {
    await b.put("/v1/agent/check/register", {
      ID: "fit",
      ServiceID: "web-beta",
      Name: "fit",
      TTL: "60s",
      Status: "passing",
    });
    await everywhere("alpha beta gamma");
    await b.put("/v1/agent/check/fail/fit?note=tired");
    await everywhere("alpha gamma");
    const checks = (await c.get("/v1/health/checks/web")) as { CheckID: string; Output: string }[];
    expect(checks.find(({ CheckID }) => CheckID === "fit")?.Output).toBe("tired");
    expect(await c.dns()).toBe("10.78.0.1 10.78.0.3");
    await b.put("/v1/agent/check/deregister/fit");
    await everywhere("alpha beta gamma");
    await b.put("/v1/agent/service/maintenance/web-beta?enable=true&reason=repair");
    await everywhere("alpha gamma");
    await b.put("/v1/agent/service/maintenance/web-beta?enable=false");
    await everywhere("alpha beta gamma");
  });

  it.each([
    ["is killed", () => c.stop("SIGKILL"), () => c.start()],
    ["loses its cable", () => c.host.unplug(), () => c.host.plug()],
    ["hangs", async () => c.signal("SIGSTOP"), async () => c.signal("SIGCONT")],
  ])("a host that %s is critical, out of the answers, and back when it is", async (_, vanish, back) => {
    await everywhere("alpha beta gamma");
    await vanish();
    await Promise.all([a.sees("alpha beta"), b.sees("alpha beta")]);
    expect(await a.members()).toBe("alpha:alive beta:alive gamma:failed");
    expect(await b.dns()).toBe("10.78.0.1 10.78.0.2");
    const checks = (await b.get("/v1/health/node/gamma")) as { CheckID: string; Status: string }[];
    expect(checks.find(({ CheckID }) => CheckID === "serfHealth")?.Status).toBe("critical");
    await back();
    await everywhere("alpha beta gamma");
    await b.knows("alpha:alive beta:alive gamma:alive");
  });

  it("leaves the right state on both sides of a partition, and after it", async () => {
    await everywhere("alpha beta gamma");
    await lan.split([c.host]);
    await Promise.all([a.sees("alpha beta"), b.sees("alpha beta")]);
    // Two of three fell silent for gamma: its guard keeps them in answers, its directory tells the truth.
    await c.knows("alpha:failed beta:failed gamma:alive");
    expect(await c.web()).toBe("gamma");
    expect(await c.dns()).toBe("10.78.0.1 10.78.0.2 10.78.0.3");
    expect((await c.trilith("doctor")).out).toMatch(/"web" is held by the sharp-drop guard/);
    await a.put("/v1/agent/service/deregister/web-alpha");
    await b.put("/v1/agent/service/register", { ID: "db-beta", Name: "db", Port: 5432 });
    await c.put("/v1/agent/service/register", { ID: "mail-gamma", Name: "mail", Port: 25 });
    await c.put("/v1/agent/service/register", { ID: "web-gamma", Name: "web", Port: 81 });
    await a.sees("beta");
    await a.sees("beta", "db");
    expect([await a.web("db"), await a.web("mail"), await c.web("db"), await c.web("mail")]).toEqual([
      "beta",
      "",
      "",
      "gamma",
    ]);
    await lan.heal();
    await everywhere("beta gamma");
    for (const one of all) {
      expect([await one.web("db"), await one.web("mail")]).toEqual(["beta", "gamma"]);
      await one.knows("alpha:alive beta:alive gamma:alive");
      const [row] = (await one.get("/v1/catalog/service/web?filter=Node==gamma")) as { ServicePort: number }[];
      expect(row?.ServicePort).toBe(81);
    }
    await a.put("/v1/agent/service/register", { ID: "web-alpha", Name: "web", Port: 80, Tags: ["alpha"] });
    await everywhere("alpha beta gamma");
  });

  it("says goodbye when it is stopped, is back when it starts, and a restart elsewhere meanwhile brings no ghost", async () => {
    await everywhere("alpha beta gamma");
    await c.stop("SIGTERM");
    // At once: before the program had ended.
    expect([await a.web(), await b.web(), await a.members()]).toEqual([
      "alpha beta",
      "alpha beta",
      "alpha:alive beta:alive gamma:failed",
    ]);
    await a.stop("SIGKILL");
    await a.start();
    await a.sees("alpha beta");
    expect(await a.members()).toBe("alpha:alive beta:alive gamma:failed");
    await c.start();
    await everywhere("alpha beta gamma");
  });

  it("is forgotten by all when it leaves, and known again when it comes back", async () => {
    await c.trilith("leave");
    await Promise.all([a.sees("alpha beta"), b.sees("alpha beta")]);
    await a.knows("alpha:alive beta:alive");
    await c.stop();
    await c.start();
    await everywhere("alpha beta gamma");
  });
});
