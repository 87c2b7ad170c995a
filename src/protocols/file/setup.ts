// The protocol "file": services and checks that are defined in files, in Consul's format.
import { TrilithError } from "../../base/error.ts";
import { isObject } from "../../base/is-object.ts";
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { createFileSource, type FileConfig } from "./source.ts";

function listOf<T>(raw: unknown, key: string, fits: (value: unknown) => value is T, what: string): readonly T[] {
  if (raw === undefined) return [];
  const list = Array.isArray(raw) ? raw : [raw];
  for (const one of list)
    if (!fits(one)) throw new TrilithError("invalid", `file.${key}: ${JSON.stringify(one)} is not ${what}`);
  return list as readonly T[];
}

const isPath = (value: unknown): value is string => typeof value === "string" && value !== "";
const KEYS: readonly (keyof FileConfig)[] = ["paths", "consulPaths", "definitions"];

export const file: Protocol<FileConfig | undefined, "clock" | "disk" | "log" | "agent" | "self" | "probes"> =
  defineProtocol({
    name: "file",
    needs: ["clock", "disk", "log", "agent", "self", "probes"],
    /** `false` = off; `{paths?, consulPaths?, definitions?}`, see `FileConfig`. */
    configure(raw): FileConfig | undefined {
      if (raw === false) return undefined;
      if (raw === undefined || raw === null || raw === true) return { paths: [], consulPaths: [], definitions: [] };
      if (!isObject(raw))
        throw new TrilithError("invalid", `file: expected {"paths": ["folder", …]}, found ${JSON.stringify(raw)}`);
      for (const key of Object.keys(raw))
        if (!(KEYS as readonly string[]).includes(key))
          throw new TrilithError("invalid", `file.${key}: unknown key; there are ${KEYS.join(", ")}`);
      return {
        paths: listOf(raw["paths"], "paths", isPath, "the path of a file or folder"),
        consulPaths: listOf(raw["consulPaths"], "consulPaths", isPath, "the path of a file or folder"),
        definitions: listOf(
          raw["definitions"],
          "definitions",
          isObject,
          'an object such as {"service": {…}} or {"checks": […]}',
        ),
      };
    },
    setup(config, ground) {
      if (config === undefined) return undefined;
      if (config.paths.length + config.consulPaths.length + config.definitions.length === 0) return undefined;
      const source = createFileSource(config, {
        clock: ground.clock,
        disk: ground.disk,
        log: ground.log.part("file"),
        agent: ground.agent,
        ability: {
          scripts: ground.self.scripts.fromFiles,
          parse(kind) {
            const probe = ground.probes.get(kind);
            return probe === undefined ? undefined : (detail) => probe.parse(detail);
          },
        },
      });
      return { source, rereads: "anew", reload: () => source.reload() };
    },
  });
