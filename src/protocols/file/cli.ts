// Service files for the command line: `trilith register web.hcl` sends what they define to an agent.
import { type Disk, systemDisk } from "../../base/disk.ts";
import { InputError, type TrilithError, wrap } from "../../base/error.ts";
import { decodeService } from "../../wire/consul-definition/decode.ts";
import { serviceFault } from "../../wire/consul-definition/faults.ts";
import type { Path } from "../../wire/consul-definition/reader.ts";
import { parseConfigText } from "../../wire/hcl/config.ts";
import { unknownKeyText } from "./definitions.ts";

/**
 * The services of definition files as bodies for /v1/agent/service/register, in the files' order.
 * @throws InputError with file, line and key; TrilithError naming the file where it cannot be read
 */
export async function servicesInFiles(
  files: readonly string[],
  disk: Pick<Disk, "readText"> = systemDisk,
): Promise<Record<string, unknown>[]> {
  const bodies: Record<string, unknown>[] = [];
  for (const file of files) {
    const text = await disk.readText(file).catch((error: unknown) => {
      throw unreadable(file, error);
    });
    const config = parseConfigText(text, file);
    const found: { value: unknown; path: Path }[] = [];
    for (const key of ["service", "services"]) {
      const value = config.value[key];
      if (Array.isArray(value)) for (const [i, one] of value.entries()) found.push({ value: one, path: [key, i] });
      else if (value !== undefined && value !== null) found.push({ value, path: [key] });
    }
    if (found.length === 0) throw new InputError(file, "defines no service: expected service or services");
    for (const { value, path } of found) {
      const service = decodeService(value, { spelling: "file", at: config.at, path });
      const [unknown] = service.unknown;
      if (unknown !== undefined) throw new InputError(config.at(unknown.path), unknownKeyText(unknown));
      const fault = serviceFault(service);
      if (fault !== undefined) throw new InputError(config.at(service.path), fault);
      bodies.push({
        ...service.foreign,
        Name: service.name,
        ...(service.id === "" ? {} : { ID: service.id }),
        Tags: service.tags,
        Meta: service.labels,
        Address: service.address,
        Port: service.port,
        ...(service.taggedAddresses === undefined
          ? {}
          : {
              TaggedAddresses: Object.fromEntries(
                Object.entries(service.taggedAddresses).map(([role, { address, port }]) => [
                  role,
                  { Address: address, Port: port },
                ]),
              ),
            }),
        ...(service.weights === undefined
          ? {}
          : { Weights: { Passing: service.weights.passing, Warning: service.weights.warning } }),
        ...(service.socketPath === "" ? {} : { SocketPath: service.socketPath }),
        ...(service.enableTagOverride ? { EnableTagOverride: true } : {}),
        ...(service.token === "" ? {} : { Token: service.token }),
        Checks: service.checks.map((check) => check.given),
      });
    }
  }
  return bodies;
}

function unreadable(file: string, error: unknown): TrilithError {
  const { code } = error as NodeJS.ErrnoException;
  if (code === "ENOENT" || code === "ENOTDIR")
    return new InputError(
      file,
      "there is no such file; expected a definition file (JSON, HCL) with service or services",
      error,
    );
  if (code === "EISDIR")
    return new InputError(file, "is a folder; name the files in it, or have the agent read it with --services", error);
  return wrap(error, `${file} cannot be read`);
}
