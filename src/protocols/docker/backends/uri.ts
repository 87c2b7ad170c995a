// The registry URI of Registrator's command line, read as Go reads URLs.

/** scheme://host/path. */
export interface RegistryUri {
  readonly scheme: string;
  /** host:port, several with commas; "" = none. */
  readonly host: string;
  /** With its slash; "" = none. */
  readonly path: string;
  /** As it was given. */
  readonly text: string;
  /** As Go writes it again: "consul:" for "consul://". */
  readonly shown: string;
}

/** What Go leaves as it is in a path. */
const PLAIN_IN_PATH = /^[A-Za-z0-9\-_.~$&+,/:;=@!'()*%]+$/;

/** The same with everything else escaped. */
function escaped(path: string): string {
  return [...path].map((char) => (PLAIN_IN_PATH.test(char) ? char : encodeURIComponent(char))).join("");
}

/** Reads a URI; undefined for what Go's url.Parse refuses ("127.0.0.1:8500": a first segment with a colon is no path). */
export function parseRegistryUri(text: string): RegistryUri | undefined {
  if (/[\u0000-\u001f\u007f]/.test(text)) return undefined;
  const [, scheme = "", rest = text] = /^([A-Za-z][A-Za-z0-9+.-]*):(.*)$/.exec(text) ?? [];
  if (scheme === "") {
    if (text.startsWith(":")) return undefined;
    const [first = ""] = text.split(/[/?#]/, 1);
    if (first.includes(":")) return undefined;
  }
  const [, authority, path = ""] = /^(?:\/\/([^/?#]*))?([^?#]*)/.exec(rest) ?? [];
  const host = (authority ?? "").replace(/^.*@/, "");
  if (/[\\|{}^`]|%(?![^[\]]*\])/.test(host)) return undefined;
  if (!/^(\[[0-9A-Fa-f:.%]+\]|[^[\]:\s]*)(:\d*)?(,(\[[0-9A-Fa-f:.]+\]|[^[\]:\s,]+)(:\d*)?)*$/.test(host))
    return undefined;
  let decoded: string;
  try {
    decoded = decodeURIComponent(path);
  } catch {
    return undefined;
  }
  const below = authority === undefined && scheme !== "" && !path.startsWith("/") ? "" : decoded;
  const lower = scheme.toLowerCase();
  // What is neither authority nor path: a query, a fragment, or what stands opaque behind the scheme.
  const tail = rest.slice((authority === undefined ? 0 : authority.length + 2) + path.length);
  const slashes = authority !== undefined && (authority !== "" || path !== "") ? "//" : "";
  const shown = `${scheme === "" ? "" : `${lower}:`}${slashes}${authority ?? ""}${escaped(path)}${tail}`;
  return { scheme: lower, host, path: below, text, shown };
}
