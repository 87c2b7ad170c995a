// Tables of the hook for tests: services by name, each with its backends, written to a file as the agent does.
import { closeSync, linkSync, openSync, renameSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { SUPERSEDED_AT, type TableBackend, type TableHost, type TableService } from "../../src/wire/hook-table.ts";
import { encodeHookTable } from "../../src/wire/hook-table-encode.ts";

/** A backend; what is left out is ordinary. */
export type SomeBackend = Pick<TableBackend, "address" | "port"> & Partial<TableBackend>;
/** A service; the first one of a table has slot 1. */
export interface SomeService extends Partial<Omit<TableService, "backends">> {
  readonly backends: readonly SomeBackend[];
}

/** The bytes of a table in which `web` is called web.service.consul and web.connect.consul; its magic addresses are 127.128.0.0 and fd12:3456:789a:: plus the slot. */
export function tableBytes(
  services: Readonly<Record<string, SomeService>>,
  generation = 1,
  host?: TableHost,
): Uint8Array {
  return encodeHookTable({
    generation,
    writtenAtMs: Date.UTC(2026, 0, 1),
    superseded: false,
    v4: { base: 0x7f80_0000, bits: 9 },
    v6: { prefix: Uint8Array.from([0xfd, 0x12, 0x34, 0x56, 0x78, 0x9a, ...Array<number>(10).fill(0)]), bits: 96 },
    domain: "consul",
    ...(host === undefined ? {} : { host }),
    services: Object.entries(services).map(([subject, service], i) => ({
      slot: i + 1,
      subject,
      names: [`${subject}.service.consul`, `${subject}.connect.consul`],
      policy: "p2c",
      panic: false,
      held: false,
      tryMs: 1_000,
      ...service,
      backends: service.backends.map((backend) => ({ weight: 1, tier: 0, suspect: false, ...backend })),
    })),
  });
}

/** Puts a table in the place of the one before, as the agent does, so that readers notice. */
export function writeTable(path: string, services: Readonly<Record<string, SomeService>>, generation = 1): void {
  writeFileSync(`${path}.new`, tableBytes(services, generation), { mode: 0o644 });
  let before = true;
  try {
    linkSync(path, `${path}.old`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    before = false;
  }
  renameSync(`${path}.new`, path);
  if (!before) return;
  const old = openSync(`${path}.old`, "r+");
  writeSync(old, Uint8Array.from([1, 0, 0, 0]), 0, 4, SUPERSEDED_AT);
  closeSync(old);
  rmSync(`${path}.old`);
}
