// Processes and sockets → registrations: names that stay, ports counted once, words that cannot be.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Socket } from "./ports.ts";
import { type Carrier, carrierOfForeignId, type PlainNames, servicesOf } from "./services.ts";

const options = {
  scripts: false,
  probes: new Map([["http", { parse: (raw: unknown) => raw }]]),
  nodeAddress: "192.0.2.1",
};
const RANGE = [32_768, 60_999] as const;
const socket = (inode: string, port: number, host = "", protocol: "tcp" | "udp" = "tcp"): Socket => ({
  inode,
  port,
  host,
  protocol,
});
const carrier = (
  pid: number,
  env: readonly string[],
  sockets: readonly string[],
  more: Partial<Carrier> = {},
): Carrier => ({
  pid,
  startTicks: pid * 10,
  program: "prog",
  unit: "",
  elsewhere: false,
  env,
  sockets: new Set(sockets),
  ...more,
});
function found(carriers: readonly Carrier[], sockets: readonly Socket[], plain: PlainNames = new Map()) {
  return servicesOf(carriers, new Map(sockets.map((one) => [one.inode, one])), RANGE, plain, options);
}
const names = (result: ReturnType<typeof found>): string[] =>
  result.found.map(({ registration: { name, port } }) => `${name} ${port}`);

describe("services of processes", () => {
  it("have the unit in their text and the identity in their foreign ID", () => {
    const [one] = found(
      [carrier(7, ["SERVICE_NAME=web", "SERVICE_COLOR=red"], ["1"], { unit: "web.service" })],
      [socket("1", 80)],
    ).found;
    expect(one?.registration).toMatchObject({
      id: "web:7:80",
      text: "process 7 (prog, unit web.service), port 80/tcp",
      labels: { color: "red" },
    });
    expect(carrierOfForeignId(one?.registration.foreignId ?? "")).toEqual({ pid: 7, startTicks: 70 });
    expect(carrierOfForeignId("7:70:80/tcp")).toBeUndefined();
  });

  it("keep the plain name while other ports come, and leave it to a port that others reach", () => {
    const plain: PlainNames = new Map();
    const all = [socket("1", 9000, "127.0.0.1"), socket("2", 8500), socket("3", 8000)];
    const at = (...inodes: string[]) => names(found([carrier(1, ["SERVICE_NAME=a"], inodes)], all, plain));
    expect(at("1")).toEqual(["a 9000"]);
    expect(at("1", "2")).toEqual(["a 8500", "a-9000 9000"]);
    expect(at("1", "2", "3")).toEqual(["a-8000 8000", "a 8500", "a-9000 9000"]);
    expect(at("1", "3")).toEqual(["a 8000", "a-9000 9000"]);
  });

  it("leave out UDP ports of clients, unless TCP has the same or they are spoken of", () => {
    const sockets = [
      socket("1", 40_000, "", "udp"),
      socket("2", 40_001, "", "udp"),
      socket("3", 40_001),
      socket("4", 53, "", "udp"),
    ];
    expect(
      names(found([carrier(1, ["SERVICE_53_NAME=dns", "SERVICE_40001_NAME=both"], ["1", "2", "3", "4"])], sockets)),
    ).toEqual(["both 40001", "dns 53", "both 40001"]);
    expect(names(found([carrier(1, ["SERVICE_40000_NAME=named"], ["1"])], sockets))).toEqual(["named 40000"]);
    expect(names(found([carrier(1, ["SERVICE_NAME=unnamed"], ["1"])], sockets))).toEqual([]);
  });

  it("make checks of their words, and say what is wrong with them", () => {
    const { found: all, complaints } = found(
      [
        carrier(
          1,
          ["SERVICE_NAME=a", "SERVICE_80_CHECK_HTTP=/ok", "SERVICE_81_CHECK_CMD=x", "SERVICE_82_CHECK_SCRIPT=x"],
          ["1", "2", "3"],
        ),
      ],
      [socket("1", 80), socket("2", 81, "127.0.0.1"), socket("3", 82)],
    );
    expect(all.map(({ registration }) => registration.checks.map(({ kind, detail }) => [kind, detail]))).toEqual([
      [["http", { url: "http://192.0.2.1:80/ok" }]],
      [],
      [],
    ]);
    expect(all[0]?.registration.labels).toEqual({});
    expect(complaints.map(({ text }) => text)).toEqual([
      expect.stringContaining("runs inside a container, and this is none"),
      expect.stringContaining("script checks are switched off"),
    ]);
  });

  it("complain about names and checks that come to nothing", () => {
    const { found: all, complaints } = found(
      [carrier(1, ["SERVICE_NAME=my shop", "SERVICE_CHECK_HTPP=/"], ["1"])],
      [socket("1", 80)],
    );
    expect(all[0]?.registration).toMatchObject({ name: "my shop", checks: [] });
    expect(complaints.map(({ text }) => text)).toEqual([
      expect.stringMatching(/^its name "my shop" is found over HTTP only/),
      "SERVICE_CHECK_HTPP says nothing about a check; right would be SERVICE_CHECK_HTTP",
    ]);
  });

  it("complain about an ID that two have", () => {
    const two = found([carrier(1, ["SERVICE_NAME=a", "SERVICE_ID=x"], ["1", "2"])], [socket("1", 80), socket("2", 81)]);
    expect(two.found).toHaveLength(1);
    expect(two.complaints[0]?.text).toContain('another port has the ID "x" already');
  });

  it("are one for each port and name, whoever shares it, with IDs of their own", () => {
    const sockets = fc.array(
      fc.record({
        port: fc.integer({ min: 80, max: 83 }),
        host: fc.constantFrom("", "127.0.0.1", "192.0.2.7"),
        protocol: fc.constantFrom("tcp" as const, "udp" as const),
      }),
      { maxLength: 6 },
    );
    const holders = fc.array(fc.tuple(fc.constantFrom("a", "b"), fc.array(fc.nat(5))), { maxLength: 5 });
    fc.assert(
      fc.property(sockets, holders, (given, held) => {
        const all = given.map((one, i) => ({ ...one, inode: String(i) }));
        const carriers = held.map(([name, inodes], i) => carrier(i + 1, [`SERVICE_NAME=${name}`], inodes.map(String)));
        const result = found(carriers, all);
        const ids = result.found.map(({ registration }) => registration.id);
        expect(new Set(ids).size).toBe(ids.length);
        expect(found([...carriers].reverse(), [...all].reverse())).toEqual(result);
        // Every socket that somebody holds is somewhere.
        for (const { sockets: inodes, env } of carriers)
          for (const inode of inodes) {
            const one = all[Number(inode)];
            if (one === undefined) continue;
            const base = env[0]?.split("=")[1] ?? "";
            expect(
              result.found.some(
                ({ protocol, port, registration }) =>
                  protocol === one.protocol && port === one.port && registration.name.split("-")[0] === base,
              ),
            ).toBe(true);
          }
      }),
    );
  });
});
