// What a process says about itself in its environment, from its bytes; and where the process runs, from its control groups. Pure.

/** Set for everything that `trilith run` starts: it registers what those programs listen on. */
export const RUN_MARK = "TRILITH_RUN";

/** The words of an environment that matter here. */
export interface Words {
  /** SERVICE_* entries, in their order. */
  readonly env: readonly string[];
  /** True below `trilith run`. */
  readonly wrapped: boolean;
}

const PREFIX = "SERVICE_";
/** A name for all ports, or for one of them. */
const NAMED = /^SERVICE_(?:[0-9]+_)?NAME=./i;

/** Reads an environment: entries that end with NUL [proc(5)]. Undefined where it names no service. Bytes that are no UTF-8 become U+FFFD. */
export function wordsOf(environ: Uint8Array): Words | undefined {
  const bytes = Buffer.from(environ.buffer, environ.byteOffset, environ.byteLength);
  const env: string[] = [];
  let wrapped = false;
  // Most processes have no such word at all: they are not taken apart.
  for (let at = bytes.indexOf(PREFIX); at >= 0; at = bytes.indexOf(PREFIX, at + 1)) {
    if (at > 0 && bytes[at - 1] !== 0) continue;
    const end = bytes.indexOf(0, at);
    env.push(bytes.toString("utf8", at, end < 0 ? bytes.length : end));
  }
  if (!env.some((entry) => NAMED.test(entry))) return undefined;
  const mark = bytes.indexOf(`${RUN_MARK}=`);
  wrapped = mark === 0 || (mark > 0 && bytes[mark - 1] === 0);
  return { env, wrapped };
}

/** True where a program wrote its title over its environment, as nginx and PostgreSQL do: what is there has no variables any more. */
export function isOverwritten(environ: Uint8Array): boolean {
  return environ.length > 0 && !environ.subarray(0, 4096).includes(0x3d);
}

/** A path below a control group that is a container's: Docker's, Podman's, containerd's, CRI-O's names all hold 64 hex digits. */
const CONTAINER = /(?:^|[-_.:])([0-9a-f]{64})(?:\.scope)?$/;
const PODS = /^(?:kubepods|libpod|lxc\.payload)/;

export interface Group {
  /** The container's ID, or what its group is called; "" = none. */
  readonly container: string;
  /** "web.service"; "" = none. */
  readonly unit: string;
}

/** Reads /proc/<pid>/cgroup: lines of number:controllers:path. */
export function groupOf(text: string): Group {
  let container = "";
  let unit = "";
  for (const line of text.split("\n")) {
    const path = line.slice(line.indexOf(":", line.indexOf(":") + 1) + 1);
    for (const part of path.split("/")) {
      const id = CONTAINER.exec(part)?.[1] ?? (PODS.test(part) ? part : "");
      if (id !== "") container ||= id;
      // Below a user's manager the last unit is the meant one.
      if (part.endsWith(".service") && container === "") unit = part;
    }
  }
  return { container, unit };
}
