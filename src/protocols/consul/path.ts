// Request paths as Go's server treats them: cleaned on their escaped form, decoded once, without control characters.

/** Path and query of a request line; the absolute form ("http://host/path") counts as its path. */
export function splitTarget(target: string): { readonly path: string; readonly query: string } {
  const absolute = /^[A-Za-z][A-Za-z0-9+.-]*:\/\/[^/?]*/.exec(target);
  const rest = absolute === null ? target : target.slice(absolute[0].length);
  const at = rest.indexOf("?");
  const path = at === -1 ? rest : rest.slice(0, at);
  return { path: path === "" ? "/" : path, query: at === -1 ? "" : rest.slice(at + 1) };
}

/** An escaped path without empty, "." and ".." segments; a slash at the end stays. The same text where nothing is to be done. */
export function cleanPath(path: string): string {
  if (path.startsWith("/") && !/\/\/|\/\.{1,2}(\/|$)/.test(path)) return path;
  const kept: string[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") kept.pop();
    else kept.push(part);
  }
  const joined = `/${kept.join("/")}`;
  return joined !== "/" && path.endsWith("/") ? `${joined}/` : joined;
}

/** An escaped path with its segments decoded, to find its route by; a slash that was escaped separates nothing. */
export function routePath(path: string): string {
  if (!path.includes("%")) return path;
  return path
    .split("/")
    .map((segment) => {
      const decoded = decodePath(segment);
      return decoded === undefined || decoded.includes("/") ? segment : decoded;
    })
    .join("/");
}

/** The decoded path. Undefined for a broken escape (%zz) and for bytes that are not UTF-8. */
export function decodePath(path: string): string | undefined {
  if (!path.includes("%")) return path;
  try {
    return decodeURIComponent(path);
  } catch {
    return undefined;
  }
}
