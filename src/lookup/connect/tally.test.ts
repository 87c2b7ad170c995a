// What a proxy counts, and how much of it metrics keep for ever.
import { expect, it } from "vitest";
import { createMetrics } from "../../base/metrics.ts";
import { Tally } from "./tally.ts";

const at = (port: number): { address: string; port: number; weight: number } => ({
  address: "192.0.2.1",
  port,
  weight: 1,
});

it("counts each backend by itself, and in metrics only so many", () => {
  const metrics = createMetrics();
  const tally = new Tally(metrics, "web");
  for (let port = 1; port <= 300; port++) {
    const row = tally.reached(at(port));
    tally.passedOn(row, "toBackend", 10);
    tally.passedOn(row, "toClient", 1);
  }
  tally.missed(at(300));
  expect(tally.rows()).toHaveLength(300);
  expect(tally.rows().at(-1)).toEqual({
    ...at(300),
    weight: undefined,
    open: 1,
    total: 1,
    failures: 1,
    toBackend: 10,
    toClient: 1,
  });
  expect([tally.toBackend, tally.toClient, tally.retries]).toEqual([3_000, 300, 1]);
  const value = (name: string, labels: Record<string, string>): number | undefined =>
    metrics.read().find((each) => each.name === name && JSON.stringify(each.labels) === JSON.stringify(labels))?.value;
  expect(value("proxy_backend_connections_total", { proxy: "web", backend: "192.0.2.1:1" })).toBe(1);
  expect(value("proxy_backend_connections_total", { proxy: "web", backend: "others" })).toBe(44);
  expect(value("proxy_backend_failures_total", { proxy: "web", backend: "others" })).toBe(1);
  expect(value("proxy_bytes_total", { proxy: "web", to: "backend" })).toBe(3_000);
});

it("proxies that come and go leave no more than so many rows behind, nor do backends", () => {
  const metrics = createMetrics();
  for (let i = 0; i < 2_000; i++) new Tally(metrics, `container-${i}`).opened();
  expect(metrics.read().filter(({ name }) => name === "proxy_connections_total")).toHaveLength(257);
  const tally = new Tally(metrics, "web");
  for (let port = 1; port <= 3_000; port++) tally.reached(at(port)).open--;
  expect(tally.rows()).toHaveLength(1_024);
  expect(tally.rows().at(-1)?.port).toBe(3_000);
});
