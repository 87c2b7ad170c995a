// Which files a path given for configuration or service files means: the one rule for whoever reads or checks them.
import type { Disk } from "./disk.ts";

/**
 * The files behind a path, in the order in which they count: itself, or of a folder the *.json and *.hcl directly in it in lexical order,
 * hidden ones included, as Consul reads them. Folders, sockets and pipes of such a name and links to nowhere (editors' locks) are passed over.
 * Undefined where nothing is. Files that cannot be looked at are in the list: reading them tells why.
 * Rejects with Node's errno errors when the path itself cannot be looked at or listed.
 */
export async function configFiles(
  path: string,
  disk: Pick<Disk, "info" | "list">,
): Promise<readonly string[] | undefined> {
  const info = await disk.info(path);
  if (info === undefined) return undefined;
  if (!info.isDirectory) return [path];
  const files: string[] = [];
  for (const name of await disk.list(path)) {
    if (!/\.(json|hcl)$/i.test(name)) continue;
    const file = `${path.replace(/\/+$/, "")}/${name}`;
    const found = await disk.info(file).catch(() => ({ isFile: true }));
    if (found?.isFile) files.push(file);
  }
  return files;
}
