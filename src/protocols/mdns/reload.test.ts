// Another configuration of mDNS while the agent runs, on a simulated LAN and clock: what stays is not said goodbye to, what is no longer asked for goes.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { scene } from "../../../test/support/mdns-agents.ts";
import { ownFolder } from "../../../test/support/peers.ts";
import { callbackLog } from "../../base/log.ts";
import type { Registration } from "../../model/instance.ts";

const service = (name: string, labels = {}): Registration => ({
  ...{ id: name, name, tags: [], labels, address: "", port: 8080, checks: [] },
});

it("announces and looks for something else", async () => {
  const { clock, agent, host, browse } = scene();
  const said: string[] = [];
  let mdns: object | false = { files: false };
  const told = () => ({
    ...{ node: "alpha", httpPort: -1, advertiseAddress: "10.0.0.1" },
    protocols: { consul: false, dns: false, mdns },
  });
  const alpha = await agent(
    "alpha",
    ["10.0.0.1/24"],
    {},
    {},
    {
      log: callbackLog((_level, _part, text) => void said.push(text)),
      reread: async () => told(),
    },
  );
  const other = await host("other", ["10.0.0.9/24"]);
  const events: string[] = [];
  for (const type of ["_shop._tcp", "_quiet._tcp", "_file._tcp"])
    other.browse({ type }, ({ kind, ...event }) => {
      if ("found" in event) events.push(`${kind} ${event.found.name}`);
    });
  const printers = browse(other, "_ipp._tcp");
  other.publish({ name: "P", services: [{ type: "_ipp._tcp", port: 631, txt: [] }] });
  other.publish({ name: "W", services: [{ type: "_http._tcp", port: 80, txt: [] }] });
  await alpha.trilith.agent.register("api", service("shop", { mdns: "true" }));
  await alpha.trilith.agent.register("api", service("quiet"));
  const became = async (now: object | false): Promise<readonly string[]> => {
    mdns = now;
    let over = false;
    const done = alpha.trilith.reload().finally(() => {
      over = true;
    });
    for (let i = 0; !over && i < 200; i++) await clock.advance(50);
    await done;
    await clock.advance(3000);
    return events.splice(0);
  };
  await clock.advance(3000);
  expect(events.splice(0)).toEqual(["add shop on alpha"]);
  expect([alpha.found("ipp").length, alpha.found("http").length]).toEqual([1, 1]);

  expect(await became({ files: false })).toEqual([]);
  // More: only the news is told.
  expect(await became({ files: false, publish: "all" })).toEqual(["add quiet on alpha"]);
  const folder = await ownFolder("mdns-reload");
  await writeFile(
    join(folder.path, "f.service"),
    "<service-group><name>F</name><service><type>_file._tcp</type><port>9</port></service></service-group>",
  );
  try {
    expect(await became({ files: folder.path, publish: "all" })).toEqual(["add F"]);
    expect(alpha.trilith.agent.services().size).toBe(3);
    // Less: goodbye is said to the rest, and nothing of it is this host's any more.
    expect((await became({ files: false, discover: ["_ipp._tcp"] })).toSorted()).toEqual([
      "remove F",
      "remove quiet on alpha",
    ]);
  } finally {
    await folder.remove();
  }
  expect([alpha.found("ipp").length, alpha.found("http").length]).toEqual([1, 0]);
  expect(alpha.trilith.agent.services().size).toBe(2);
  expect(alpha.trilith.lookup.held()).toEqual([]);
  const reasons = () => [...alpha.trilith.directory.view().list("grave")].map(({ why }) => why?.text);
  expect(reasons()).toContain("the configuration of mdns no longer asks for it");
  expect(await became({ files: false, discover: true })).toEqual([]);
  expect(alpha.found("http").length).toBe(1);
  expect(await became({ files: false, discover: false })).toEqual([]);
  expect([alpha.found("ipp").length, alpha.found("http").length]).toEqual([0, 0]);

  said.splice(0);
  expect(await became({ files: false, host_name: "beta", interfaces: ["eth0"] })).toEqual([]);
  expect(said.filter((text) => text.includes("restart"))).toEqual([
    "mdns.interfaces is another one now: it counts after a restart",
    "mdns.host_name is another one now: it counts after a restart",
  ]);
  mdns = { publish: "some" };
  await expect(alpha.trilith.reload()).rejects.toThrow("mdns.publish");
  // Off: everybody hears goodbye, and what was found goes.
  expect(await became(false)).toEqual(["remove shop on alpha"]);
  expect(alpha.found("ipp")).toEqual([]);
  expect(await became({ files: false })).toEqual(["add shop on alpha"]);
  expect(alpha.found("ipp").length).toBe(1);
  expect([...printers]).toEqual(["P"]);
});

it("keeps what service files say when the agent stops", async () => {
  const { clock, agent } = scene();
  const folder = await ownFolder("mdns-stop");
  try {
    await writeFile(
      join(folder.path, "f.service"),
      "<service-group><name>F</name><service><type>_file._tcp</type><port>9</port></service></service-group>",
    );
    const alpha = await agent("alpha", ["10.0.0.1/24"], { files: folder.path });
    await clock.advance(3000);
    expect(alpha.trilith.agent.services().size).toBe(1);
    await alpha.stop();
    expect(alpha.trilith.agent.services().size).toBe(1);
  } finally {
    await folder.remove();
  }
});
