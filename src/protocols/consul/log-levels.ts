// Consul's words for the levels of a log.
import type { LogLevel } from "../../base/log.ts";

/** By the word in lower case, as `log_level` and `/v1/agent/monitor` take it. */
export const LOG_LEVELS: ReadonlyMap<string, LogLevel> = new Map([
  ["trace", "trace"],
  ["debug", "debug"],
  ["info", "info"],
  ["warn", "warn"],
  ["warning", "warn"],
  ["err", "error"],
  ["error", "error"],
]);
