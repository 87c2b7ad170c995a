// Multicast DNS on a simulated LAN: what RFC 6762 and 6763 ask of several hosts together.
import { describe, expect, it } from "vitest";
import { silentLog } from "../../src/base/log.ts";
import {
  type BrowseEvent,
  createMdns,
  type Found,
  type Mdns,
  type MdnsOptions,
  type Resolved,
} from "../../src/protocols/mdns/engine.ts";
import { TYPE, textOfName } from "../../src/wire/dns/index.ts";
import { type FakeClock, fakeClock } from "./clock.ts";
import { Lan, type LanOptions, seeded } from "./lan.ts";

interface World {
  readonly clock: FakeClock;
  readonly lan: Lan;
  /** A running engine. */
  host(name: string, addresses?: readonly string[], options?: Partial<MdnsOptions>): Promise<Mdns>;
}

function world(seed = 1, conditions: LanOptions = {}): World {
  const clock = fakeClock();
  const lan = new Lan(clock, seeded(seed), conditions);
  let hosts = 0;
  return {
    clock,
    lan,
    async host(name, addresses, options = {}) {
      hosts++;
      const net = lan.host(`${name}/${hosts}`, ...(addresses ?? [`10.0.0.${hosts}/24`]));
      const mdns = createMdns({
        clock,
        random: seeded(seed * 1000 + hosts),
        log: silentLog,
        net,
        hostName: name,
        ...options,
      });
      await mdns.start();
      return mdns;
    },
  };
}

/** The instances that a browse sees at present, by name. */
function seen(mdns: Mdns, type = "_http._tcp", log: BrowseEvent<Found>[] = []): Map<string, Found> {
  const now = new Map<string, Found>();
  mdns.browse({ type }, (event) => {
    log.push(event);
    if (event.kind === "add") now.set(event.found.name, event.found);
    if (event.kind === "remove") now.delete(event.found.name);
  });
  return now;
}

const txt = (...texts: string[]): Uint8Array[] => texts.map((text) => Buffer.from(text));

describe("a publication", () => {
  it("is seen, resolved and gone elsewhere", async () => {
    const { clock, host } = world();
    const a = await host("host-a");
    const b = await host("host-b");
    const log: BrowseEvent<Found>[] = [];
    const list = seen(b, "_http._tcp", log);
    const resolved: Resolved[] = [];
    b.resolve({ name: "web one", type: "_http._tcp" }, (event) => {
      if (event.kind === "resolved") resolved.push(event.found);
    });
    const web = a.publish({
      name: "web one",
      services: [{ type: "_http._tcp", port: 80, txt: txt("path=/x", "v=1") }],
    });
    expect(web.state).toBe("probing");
    await clock.advance(1100);
    expect(web.state).toBe("established");
    expect([...list.keys()]).toEqual(["web one"]);
    expect(resolved.at(-1)).toMatchObject({
      host: "host-a.local",
      port: 80,
      addresses: [{ address: "10.0.0.1", family: 4 }],
      local: false,
    });
    expect(resolved.at(-1)?.txt.map((bytes) => Buffer.from(bytes).toString())).toEqual(["path=/x", "v=1"]);
    await web.withdraw();
    await clock.advance(1100);
    expect([...list.keys()]).toEqual([]);
    expect(log.at(-1)).toMatchObject({ kind: "remove", why: "goodbye" });
    await a.stop();
    await b.stop();
    await clock.advance(10);
    expect(clock.timers).toBe(0);
  });
});
