// What `why` tells of the LAN: who says something there is told apart.
import { expect, it } from "vitest";
import type { Announcer } from "./announce.ts";
import type { Resolved } from "./engine.ts";
import { tellOf } from "./setup-tell.ts";
import type { Lan } from "./source-lan.ts";

const place = (name: string, host: string): Resolved => ({
  ...{ interface: "eth0", family: 4, local: false, name, type: "_http._tcp", domain: "local", host, port: 80 },
  ...{ priority: 0, weight: 0, txt: [], addresses: [{ address: "10.0.0.1", family: 4 }] },
});

it("what this host announces of another service is not said to be another host's", () => {
  const lan = {
    mdns: { hostName: "alpha.local" },
    places: [{ interface: "eth0", family: 4 }],
    *resolved() {
      yield [place("master", "alpha.local")];
      yield [place("far", "beta.local")];
    },
  } as unknown as Lan;
  const announcer = { about: () => [], isMine: (name: string) => name === "master" } as unknown as Announcer;
  expect(tellOf(lan, announcer, "http").map(({ text }) => text)).toEqual([
    '_http._tcp.local PTR: "master" at alpha.local:80 (10.0.0.1), said by this host for a service of another name',
    '_http._tcp.local PTR: "far" at beta.local:80 (10.0.0.1), said by another host or program',
  ]);
});
