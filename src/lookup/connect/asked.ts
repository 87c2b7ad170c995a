// Services whose magic address programs without a hook asked for, kept in the data folder with the ports that were open.
import type { Durable } from "../../base/durable.ts";
import type { AskedMagic, AskedMagics } from "../../contracts/magic.ts";

const TABLE = "magic-asked";

/** Reads what was kept before; what cannot be read is left out, since it is asked for again. @throws as `Durable.entries` */
export async function readAsked(durable: Durable): Promise<AskedMagics> {
  const all = new Map<string, AskedMagic>();
  for await (const [service, value] of durable.entries(TABLE)) {
    const asked = askedOf(service, Buffer.from(value).toString("utf8"));
    if (asked !== undefined) all.set(service, asked);
  }
  return {
    all: () => [...all.values()],
    async keep(asked) {
      all.set(asked.service, asked);
      const { service, ...rest } = asked;
      await durable.write([{ table: TABLE, key: service, value: Buffer.from(JSON.stringify(rest)) }]);
    },
    async forget(service) {
      if (all.delete(service)) await durable.write([{ table: TABLE, key: service, value: undefined }]);
    },
  };
}

function askedOf(service: string, text: string): AskedMagic | undefined {
  let kept: Partial<AskedMagic> | null;
  try {
    kept = JSON.parse(text) as Partial<AskedMagic> | null;
  } catch {
    return undefined;
  }
  if (!Array.isArray(kept?.ports) || !kept.ports.every((port) => typeof port === "string")) return undefined;
  const { ports, unknownSinceMs } = kept;
  return { service, ports, ...(typeof unknownSinceMs === "number" ? { unknownSinceMs } : {}) };
}
