// A failing entry does not age its siblings, for the sources that need no peer's program; beside ZooKeeper and etcd: test/peers.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import { createHttp } from "../../src/base/http.ts";
import { createTrilith, type Trilith } from "../../src/trilith.ts";
import { ImitatedConsul } from "../support/consul-imitation.ts";
import { toldRecursor } from "../support/dns-peers.ts";
import { startAgent } from "../support/ground.ts";
import { eventually, ownFolder } from "../support/peers.ts";
import { holdsForSiblings } from "../support/siblings.ts";
import { answersFrom } from "../support/zone.ts";

const ending: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ending.splice(0).toReversed()) await end();
});
const agentWith = async (protocols: Readonly<Record<string, unknown>>) => {
  const agent = await startAgent({ protocols });
  ending.push(() => agent.stop());
  return agent;
};
async function imitated(service: string): Promise<ImitatedConsul> {
  const consul = new ImitatedConsul(10_000);
  consul.register(`${service}-host`, "192.0.2.1", { ID: service, Service: service, Port: 80 });
  await consul.start();
  ending.push(() => consul.stop());
  return consul;
}

describe("a failing entry does not age its siblings", () => {
  it("of flat: a file", async () => {
    const folder = await ownFolder("siblings");
    ending.push(() => folder.remove());
    const [a, b] = [join(folder.path, "a.json"), join(folder.path, "b.json")];
    for (const path of [a, b]) await writeFile(path, '["192.0.2.1:80"]');
    await holdsForSiblings(await agentWith({ flat: { files: folder.path, settle: "50ms" } }), {
      ...{ source: "flat", failing: "a", well: "b", entry: a, why: /JSON.*its last good version stays in force/ },
      fail: () => writeFile(a, "[nonsense"),
      mend: () => writeFile(a, '["192.0.2.1:80"]'),
    });
  });

  it("of dns-upstream: a name", async () => {
    let broken = false;
    const zone = ["a.example.com. 1 A 192.0.2.1", "b.example.com. 1 A 192.0.2.2"];
    const recursor = await toldRecursor((query) =>
      broken && query.questions[0]?.name[0]?.startsWith("a") === true ? { rcode: 2 } : answersFrom(() => zone)(query),
    );
    ending.push(() => recursor.stop());
    const services = ["a", "b"].map((service) => ({ service, name: `${service}.example.com`, port: 80 }));
    const agent = await agentWith({
      "dns-upstream": { services, resolvers: recursor.place, floor: "200ms", timeout: "200ms" },
    });
    await holdsForSiblings(agent, {
      ...{ source: "dns-upstream", failing: "a", well: "b", entry: "a (a.example.com:80)" },
      why: /no answer, what is known stays: .*SERVFAIL/,
      fail: () => (broken = true),
      mend: () => (broken = false),
    });
  });

  it("of consul-upstream: an upstream", async () => {
    const [a, b] = [await imitated("a"), await imitated("b")];
    const upstreams = [
      { name: "one", url: a.url },
      { name: "two", url: b.url },
    ];
    await holdsForSiblings(await agentWith({ "consul-upstream": { upstreams } }), {
      ...{ source: "consul-upstream", failing: "a", well: "b", entry: "one" },
      why: /does not answer, what is known stays: .*ECONNREFUSED/,
      fail: () => a.stop(),
      mend: () => a.start(),
    });
  });
});

it("who asks while an agent starts makes nothing younger: a source that has not begun says nothing of how it is", async () => {
  const consul = await imitated("a");
  const folder = await ownFolder("siblings-restart");
  ending.push(() => folder.remove());
  const settings = {
    ...{ dev: false, dataDir: folder.path },
    protocols: { "consul-upstream": { upstreams: { url: consul.url } } },
  };
  const first = await startAgent(settings);
  ending.push(() => first.stop());
  const found = (trilith: Trilith) => trilith.lookup.resolveNow({ service: "a" });
  await eventually("it is known", () => found(first.trilith).endpoints.length > 0);
  await first.stop();
  await consul.stop();
  // An hour later.
  const clock: Clock = { ...systemClock, now: () => systemClock.now() + 3_600_000 };
  const http = createHttp();
  let asked = 0;
  const second = createTrilith(
    { httpPort: 0, node: "alpha", ...settings, protocols: { ...settings.protocols, dns: { port: -1 } } },
    {
      clock,
      http: {
        ...http,
        // Opened when the directory and the lookup stand, and before sources begin.
        serve(at, handle) {
          asked += found(second).endpoints.length;
          return http.serve(at, handle);
        },
        request: (...words) => http.request(...words),
        close: () => http.close(),
      },
    },
  );
  ending.push(
    () => second.stop(),
    () => http.close(),
  );
  await second.start();
  expect(asked).toBe(1);
  await eventually("it is stale", () => !found(second).fresh);
  expect(found(second).ageMs).toBeGreaterThanOrEqual(3_600_000);
});
