// A hook table of a test's own: services by name and their ports on loopback, replaced as the agent does.
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { mappedFile } from "../../src/base/mapped-file.ts";
import { type Policy, SUPERSEDED_AT, type TableBackend } from "../../src/wire/hook-table.ts";
import { encodeHookTable } from "../../src/wire/hook-table-encode.ts";

/** What a test says of a service; everything else is as an agent has it by default. */
export interface Service {
  readonly name: string;
  readonly ports: readonly number[];
  readonly policy?: Policy;
  readonly tryMs?: number;
  readonly backends?: readonly TableBackend[];
}

/** Writes tables to one place; slots follow the order in which names were first seen. */
export function hookTable(path: string): { readonly path: string; put(services: readonly Service[]): Promise<void> } {
  const file = mappedFile(path, { at: SUPERSEDED_AT, value: 1 });
  const slots = new Map<string, number>();
  let generation = 0;
  return {
    path,
    async put(services) {
      for (const { name } of services) if (!slots.has(name)) slots.set(name, slots.size + 1);
      await mkdir(dirname(path), { recursive: true });
      await file.replace(
        encodeHookTable({
          generation: ++generation,
          writtenAtMs: Date.now(),
          superseded: false,
          v4: { base: 0x7f800000, bits: 9 },
          v6: { prefix: Uint8Array.of(0xfd, 0x74, 0x72, 0x69, 0x6c, 0x69, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), bits: 96 },
          domain: "consul",
          services: services
            .map(({ name, ports, policy = "p2c", tryMs = 1000, backends }) => ({
              slot: slots.get(name) as number,
              subject: name,
              names: [`${name}.service.consul`],
              policy,
              panic: false,
              held: false,
              tryMs,
              backends:
                backends ??
                ports.map((port) => ({ address: "127.0.0.1", port, weight: 1, tier: 0 as const, suspect: false })),
            }))
            .sort((a, b) => a.slot - b.slot),
        }),
      );
    },
  };
}
