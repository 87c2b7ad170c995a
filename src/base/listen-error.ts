// What to do about an address that the system does not let a program listen at.
import { codeOf, messageOf, TrilithError } from "./error.ts";

/** The error with advice, where a port below 1024 is refused, or an address is none of this host's; any other error as it is. */
export function explainListening(error: unknown, port: number): unknown {
  if (codeOf(error) === "not-allowed" && port > 0 && port < 1024)
    return new TrilithError(
      "not-allowed",
      `port ${port} needs a privilege: run as root, or grant it with "setcap cap_net_bind_service=+ep" to node, or choose a port above 1023`,
      error,
    );
  if (error instanceof TrilithError && (error.cause as NodeJS.ErrnoException | undefined)?.code === "EADDRNOTAVAIL")
    return new TrilithError(
      error.code,
      `${messageOf(error)}: this host has no such address; "ip addr" lists those that it has`,
      error,
    );
  return error;
}
