// Keys and sessions of the library on a client host: they are the server's, locks included; what goes wrong is said readably.
import { afterEach, expect, test } from "vitest";
import type { Settings } from "../../src/contracts/settings.ts";
import { createTrilith, type Trilith } from "../../src/trilith.ts";
import { freePort } from "../support/peers.ts";

let ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.reverse()) await end();
  ends = [];
});

async function agent(node: string, given: Partial<Settings>): Promise<Trilith> {
  const protocols = { docker: false, process: false, file: false, dns: false };
  const made = createTrilith({ node, dev: true, advertiseAddress: "127.0.0.1", protocols, ...given });
  ends.push(() => made.stop());
  await made.start();
  return made;
}

test("a client host reads, sets, locks and deletes keys at its server", async () => {
  const httpPort = await freePort();
  const server = await agent("server", { httpPort });
  const client = await agent("client", {
    httpPort: await freePort(),
    join: { servers: [`http://127.0.0.1:${httpPort}`], livenessMs: 3000 },
  });
  const bytes = (text: string): Uint8Array => Buffer.from(text);

  for (const key of ["plain", "a//b/./c", "ü ?&=#%2F+", "\u{1f0a1}"]) {
    expect(await client.kv.read(key)).toBeUndefined();
    expect(await client.kv.set(key, bytes(key), { flags: 18_446_744_073_709_551_615n })).toBe(true);
    expect(server.kv.get(key)).toMatchObject({ flags: 18_446_744_073_709_551_615n });
    const pair = await client.kv.read(key);
    expect(pair).toMatchObject({ key, lockIndex: 0, flags: 18_446_744_073_709_551_615n });
    expect(Buffer.from(pair?.value ?? []).toString()).toBe(key);
    expect(await client.kv.set(key, bytes(""), { cas: 1 })).toBe(false);
    expect(await client.kv.set(key, bytes(""), { cas: pair?.modifyIndex ?? 0 })).toBe(true);
    expect(await client.kv.delete(key, { cas: 1 })).toBe(false);
    expect(await client.kv.delete(key)).toBe(true);
    expect(await server.kv.read(key)).toBeUndefined();
  }
  await client.kv.set("tree/a", bytes("1"));
  await client.kv.set("trees", bytes("2"));
  await client.kv.deleteTree("tree/");
  expect([server.kv.get("tree/a"), server.kv.get("trees")?.key]).toEqual([undefined, "trees"]);
  await client.kv.set("short", bytes("1"), { ttlMs: 150 });
  await expect.poll(() => server.kv.get("short"), { timeout: 5000 }).toBeUndefined();

  const request = { name: "s", node: "server", lockDelayMs: 0, behavior: "delete", ttlMs: 15_000 } as const;
  const id = await client.sessions.create({ ...request, nodeChecks: [], serviceChecks: [] });
  expect(await client.sessions.renew(id)).toMatchObject({
    id,
    name: "s",
    ttlMs: 15_000,
    behavior: "delete",
    lockDelayMs: 0,
  });
  expect(await client.kv.set("lock", bytes("held"), { acquire: id })).toBe(true);
  expect(server.kv.get("lock")).toMatchObject({ session: id, lockIndex: 1 });
  await client.sessions.destroy(id);
  expect(await client.sessions.renew(id)).toBeUndefined();
  expect(await server.kv.read("lock")).toBeUndefined();

  await expect(client.kv.set("lock", bytes(""), { acquire: id })).rejects.toThrow(`invalid session "${id}"`);
  await expect(client.kv.set("large", Buffer.alloc(600_000))).rejects.toThrow(
    expect.objectContaining({
      code: "too-large",
      message: expect.stringContaining("too large, max size: 524288 bytes"),
    }),
  );
  await expect(client.sessions.create({ ...request, nodeChecks: ["nope"], serviceChecks: [] })).rejects.toThrow(
    'check "nope" is not registered',
  );
  await expect(
    client.sessions.create({ ...request, node: "nowhere", nodeChecks: [], serviceChecks: [] }),
  ).rejects.toThrow('node "nowhere" is not registered');
  expect(() => client.kv.get("lock")).toThrow("this host is only a client and holds no keys");

  await server.stop();
  await expect(client.kv.read("lock")).rejects.toThrow(expect.objectContaining({ code: "unavailable" }));
  await expect(client.sessions.renew(id)).rejects.toThrow(new RegExp(`127\\.0\\.0\\.1:${httpPort}`));
});
