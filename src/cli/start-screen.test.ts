// Tests what a starting agent prints: every place that it listens at, and what its sources say to the end.
import { expect, test } from "vitest";
import type { Trilith } from "../index.ts";
import { startScreen, statusLine } from "./start-screen.ts";

test("every address, and what to do about a source, is told whole", () => {
  const advice = `no process says SERVICE_NAME; ${"much ".repeat(30)}run the agent with these rights`;
  const screen = startScreen({
    self: {
      ...{ version: "9.9.9", node: "home", datacenter: "dc1", domain: "consul", dev: true },
      listening: new Map([
        ["http", "127.0.0.1:8500"],
        ["http-more", "10.9.0.1:8500, unix:///run/trilith.sock"],
        ["dns", "127.0.0.1:8600"],
        ["backends", "10.9.0.1:8510"],
      ]),
    },
    settings: { storage: "memory" },
    sources: () => [{ name: "process", ok: true, text: advice }],
    warnings: [],
  } as unknown as Trilith);
  expect(screen).toMatch(/^ {2}HTTP +http:\/\/127\.0\.0\.1:8500 /m);
  expect(screen).toMatch(/^ +http:\/\/10\.9\.0\.1:8500$/m);
  expect(screen).toMatch(/^ +unix:\/\/\/run\/trilith\.sock$/m);
  expect(screen).toMatch(/^ {2}backends +10\.9\.0\.1:8510$/m);
  expect(screen).toContain(advice);
  // The first is the one to try.
  expect(screen).toContain("npx trilith find web");
});

test("the service manager is told in one line", () => {
  const listening = new Map([
    ["http", "127.0.0.1:8500"],
    ["http-more", "10.9.0.1:8500"],
    ["backends", "10.9.0.1:8510"],
  ]);
  const line = (places: typeof listening) =>
    statusLine({ self: { node: "home", datacenter: "dc1", listening: places } } as unknown as Trilith);
  expect(line(listening)).toBe("node home, datacenter dc1: HTTP 127.0.0.1:8500, backends 10.9.0.1:8510");
  expect(line(new Map())).toBe("node home, datacenter dc1");
});

test("an etcd that does not answer yet is told", () => {
  const screen = (fresh: boolean) =>
    startScreen({
      self: { version: "9.9.9", node: "home", datacenter: "dc1", domain: "consul", listening: new Map() },
      settings: { storage: "etcd", dataDir: "/data", etcd: { endpoints: ["http://10.0.0.1:2379"] } },
      directory: { view: () => ({ fresh }) },
      sources: () => [],
      warnings: [],
    } as unknown as Trilith);
  expect(screen(false)).toMatch(/\nWarnings\n {2}! the etcd does not answer yet: /);
  expect(screen(true)).not.toContain("Warnings");
});
