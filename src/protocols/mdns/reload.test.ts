// Another configuration of mDNS while the agent runs, on a simulated LAN and clock: what stays is not said goodbye to, what is no longer asked for goes.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { type Scene, scene, timelessDisk } from "../../../test/support/mdns-agents.ts";
import { ownFolder } from "../../../test/support/peers.ts";
import { callbackLog } from "../../base/log.ts";
import type { Registration } from "../../model/instance.ts";
import { textOfName } from "../../wire/dns/index.ts";

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
    ...["interfaces", "host_name"].map(
      (key) =>
        `mdns.${key} is another one now: it counts after a restart, as everything that is announced would have to say goodbye`,
    ),
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

/** An agent on 10.0.0.1 whose configuration of mDNS is another one after the returned function, with 3 s for it. */
async function changing({ clock, agent }: Scene, first: object, options: object = {}) {
  let mdns = first;
  const settings = { node: "alpha", httpPort: -1, advertiseAddress: "10.0.0.1" };
  const alpha = await agent("alpha", ["10.0.0.1/24"], first, settings, {
    ...{ reread: async () => ({ ...settings, protocols: { consul: false, dns: false, mdns } }) },
    ...options,
  });
  await clock.advance(3000);
  const become = async (now: object): Promise<void> => {
    mdns = now;
    let over = false;
    const done = alpha.trilith.reload().finally(() => {
      over = true;
    });
    for (let i = 0; !over && i < 200; i++) await clock.advance(50);
    await done;
    await clock.advance(3000);
  };
  return { alpha, become };
}

it("asks for nothing that is no longer looked for, and goes on with the rest", async () => {
  const made = scene();
  const { clock, lan, host } = made;
  const other = await host("other", ["10.0.0.9/24"]);
  other.publish({ name: "P", services: [{ type: "_ipp._tcp", port: 631, txt: [] }] });
  other.publish({ name: "W", services: [{ type: "_http._tcp", port: 80, txt: [] }] });
  const { alpha, become } = await changing(made, { files: false, publish: "all" });
  await alpha.trilith.agent.register("api", service("shop"));
  await clock.advance(3000);
  /** What alpha asked for since, beside the types that there are: each name once. */
  const asked = async (ms: number, sinceMs = clock.monotonic()): Promise<readonly string[]> => {
    await clock.advance(ms);
    const questions = lan
      .from("10.0.0.1", sinceMs)
      .flatMap(({ message }) => (message.response ? [] : message.questions.map(({ name }) => textOfName(name))));
    return [...new Set(questions)].sort();
  };
  const HOUR_MS = 3_600_000;
  expect(await asked(2 * HOUR_MS)).toEqual(
    expect.arrayContaining([
      "_http._tcp.local.",
      "_ipp._tcp.local.",
      "_services._dns-sd._udp.local.",
      "_shop._tcp.local.",
    ]),
  );
  await become({ files: false, publish: "all", discover: ["_ipp._tcp"] });
  // What is announced is looked at all the same: another program of this host may announce it, too.
  const [first = "", ...rest] = (await asked(2 * HOUR_MS)).filter((name) => !name.endsWith(".in-addr.arpa."));
  expect([first, ...rest].filter((name) => /http|services/.test(name))).toEqual([]);
  expect([first, ...rest]).toEqual(expect.arrayContaining(["_ipp._tcp.local.", "_shop._tcp.local."]));
  expect([alpha.found("ipp").length, alpha.found("http").length]).toEqual([1, 0]);
  await become({ files: false, publish: "none", discover: false });
  expect(await asked(2 * HOUR_MS)).toEqual([]);
  await become({ files: false, publish: "none", discover: true });
  expect([alpha.found("ipp").length, alpha.found("http").length]).toEqual([1, 1]);
});

it("says nothing of a service file that stands in the next folder, too, and goodbye to the rest", async () => {
  const made = scene();
  const { clock, lan, host } = made;
  const other = await host("other", ["10.0.0.9/24"]);
  const events: string[] = [];
  for (const type of ["_stays._tcp", "_goes._tcp", "_comes._tcp"])
    other.browse({ type }, ({ kind, ...event }) => {
      if ("found" in event) events.push(`${kind} ${event.found.name}`);
    });
  const [one, two] = [await ownFolder("mdns-one"), await ownFolder("mdns-two")];
  const write = (folder: string, file: string, name: string, port = 9): Promise<void> =>
    writeFile(
      join(folder, `${file}.service`),
      `<service-group><name>${name}</name><service><type>_${name}._tcp</type><port>${port}</port></service></service-group>`,
    );
  try {
    await write(one.path, "a", "stays");
    await write(one.path, "b", "goes");
    await write(two.path, "z", "stays");
    await write(two.path, "y", "comes");
    const disk = timelessDisk(clock);
    const at = (path: string): string => path.replace("/etc/avahi/services", one.path);
    const { alpha, become } = await changing(
      made,
      { files: one.path },
      {
        disk: {
          ...disk,
          list: (path: string) => disk.list(at(path)),
          info: (path: string) => disk.info(at(path)),
          readBytes: (path: string) => disk.readBytes(at(path)),
        },
      },
    );
    const from = (sinceMs: number) =>
      lan
        .from("10.0.0.1", sinceMs)
        .flatMap(({ message }) =>
          message.response
            ? message.answers.map(({ name, ttlS }) => `${ttlS === 0 ? "bye " : ""}${textOfName(name)}`)
            : [],
        );
    expect(events.splice(0).sort()).toEqual(["add goes", "add stays"]);
    // Who has just begun to browse asks a few times.
    await clock.advance(30_000);
    let sinceMs = clock.monotonic();
    await become({ files: two.path });
    expect(events.splice(0).sort()).toEqual(["add comes", "remove goes"]);
    expect(from(sinceMs).filter((name) => name.includes("stays"))).toEqual([]);
    expect(from(sinceMs)).toContain("bye _goes._tcp.local.");
    expect([...alpha.trilith.agent.services().values()].map(({ instance }) => instance.name).sort()).toEqual([
      ...["comes", "stays"],
    ]);
    // It is the same service all the time, also when its port is another one.
    await write(one.path, "a", "stays", 10);
    await become({ files: one.path });
    expect(events.splice(0).sort()).toEqual(["add goes", "remove comes"]);
    expect(from(sinceMs).filter((name) => name.startsWith("bye stays"))).toEqual([]);
    await clock.advance(30_000);
    // Left to an Avahi that does not run.
    sinceMs = clock.monotonic();
    await become({});
    expect([events, from(sinceMs)]).toEqual([[], []]);
    await become({ files: false });
    expect(events.splice(0).sort()).toEqual(["remove goes", "remove stays"]);
  } finally {
    await Promise.all([one.remove(), two.remove()]);
  }
});
