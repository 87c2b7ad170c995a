// Programs of one kind on this LAN that find each other without being told of: promised to protocols that meet others, kept by mDNS.

/** The type under which agents without a server announce where they show their own. No service of anybody. */
export const AGENTS_TYPE = "_trilith._tcp";

/** See `Ground.nearby`. */
export interface Nearby {
  /**
   * Announces this host's own under a type of service ("_trilith._tcp") at a port, by a name that people read, until aborted (then it says goodbye).
   * Yields where the others of that type are, as `host:port` with IP addresses, each time the whole list: at once, and after every change.
   * Others are whoever says so: nothing here proves who they are.
   */
  meet(
    what: { readonly type: string; readonly port: number; readonly name: string },
    signal: AbortSignal,
  ): AsyncIterable<readonly string[]>;
}
