// The ttl check is pushed, not asked: what it says when nobody pushed in time, in Consul's words.

const EXPIRED = "TTL expired";

/** The output of a check whose time ran out, given the output that stood before. */
export function expiredOutput(lastOutput: string): string {
  // Running out again (after a restart) adds nothing.
  if (lastOutput.startsWith(EXPIRED)) return lastOutput;
  return lastOutput === "" ? EXPIRED : `${EXPIRED} (last output before timeout follows): ${lastOutput}`;
}
