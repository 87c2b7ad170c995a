// What each protocol is told: what stands in the settings under its name, and what follows from the others.
import { join, resolve } from "node:path";
import type { Settings } from "../contracts/settings.ts";

/** Undefined = nothing was told, false = switched off. */
export function configurationOf(name: string, settings: Settings): unknown {
  if (name === "peers" && settings.peers !== undefined) return settings.peers;
  const raw = settings.protocols[name];
  if (name === "consul" && raw !== false) {
    // The same files that hold services and checks.
    const { consulPaths } = (settings.protocols["file"] ?? {}) as { readonly consulPaths?: readonly string[] };
    return consulPaths === undefined ? raw : { watchPaths: consulPaths, ...(raw ?? {}) };
  }
  if (name === "shim") return withTable(raw, settings);
  if (name !== "file" || raw === false || settings.dataDir === undefined || settings.dev) return raw;
  // A folder to drop service files into is there without being asked for.
  const given = (raw ?? {}) as { readonly paths?: readonly string[] };
  return { ...given, paths: [join(settings.dataDir, "services.d"), ...(given.paths ?? [])] };
}

const tableIn = (dataDir: string): string => resolve(dataDir, "hook", "table");

/** Every agent that keeps data keeps a table for hooked programs beside it; names lie in both domains that DNS answers for. */
function withTable(raw: unknown, settings: Settings): unknown {
  const { dataDir, dev, protocols: given } = settings;
  if (raw === false) return dataDir === undefined || dev ? raw : { enabled: false, ownTable: tableIn(dataDir) };
  if (raw !== undefined && raw !== true && (typeof raw !== "object" || raw === null || Array.isArray(raw))) return raw;
  const { altDomain } = (given["dns"] || {}) as { readonly altDomain?: unknown };
  return {
    ...(dataDir === undefined || dev ? {} : { ownTable: tableIn(dataDir) }),
    ...(altDomain === undefined ? {} : { altDomain }),
    ...(raw === undefined || raw === true ? {} : raw),
  };
}
