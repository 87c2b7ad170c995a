// `trilith deregister ID`: takes services out that were registered on this agent.
import { systemDisk } from "../../base/disk.ts";
import { InputError } from "../../base/error.ts";
import { type ClientOptions, clientFlags, segment, withClient } from "../client.ts";
import { type Command, collect } from "../io.ts";

/** A word that is a file means the services that it defines, as Consul reads it; another one is an ID. */
async function idsOf(words: readonly string[]): Promise<readonly string[]> {
  const all: string[] = [];
  for (const word of words) {
    if (!/\.(json|hcl)$/i.test(word) || !(await systemDisk.info(word))?.isFile) all.push(word);
    else {
      const { servicesInFiles } = await import("../../protocols/file/cli.ts");
      for (const body of await servicesInFiles([word]))
        all.push(String(body["ID"] ?? body["id"] ?? body["Name"] ?? body["name"]));
    }
  }
  return all;
}

export const command: Command = {
  name: "deregister",
  summary: "remove a service",
  define(parser, io, done) {
    clientFlags(parser)
      .argument("[ids...]", "the services' IDs, or files that define them")
      .option("--id <id>", "a service's ID (repeatable)", collect)
      .action(async (ids: readonly string[], options: ClientOptions & { readonly id?: readonly string[] }) => {
        const all = [...(await idsOf(ids)), ...(options.id ?? [])];
        if (all.length === 0) throw new InputError("", "which service? trilith deregister ID");
        await withClient(options, io, async (client) => {
          for (const id of all) {
            await client.send("PUT", `/v1/agent/service/deregister/${segment(id)}`);
            io.out(`Deregistered service: ${id}\n`);
          }
        });
        done(0);
      });
  },
};
