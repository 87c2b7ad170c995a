// What `trilith proxy` needs besides the library's own `proxy`: durations, and the status as text.
import { InputError } from "../../base/error.ts";
import { hostPort } from "../../base/net.ts";
import type { ProxyStatus } from "../../contracts/connect.ts";
import { textOfQuery } from "../../model/service-name.ts";
import { parseGoDuration } from "../../wire/duration.ts";

/** Milliseconds of a duration that a flag was given; "0" and plain numbers of seconds are durations, too. @throws InputError naming the flag */
export function durationOf(text: string, flag: string): number {
  const ms = /^\d+$/.test(text) ? Number(text) * 1_000 : parseGoDuration(text, flag);
  if (ms < 0) throw new InputError(flag, `"${text}": expected 0 or more, such as 10s`);
  return ms;
}

export { hostFromText, proxyPortFromText } from "../../model/proxy-rule.ts";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** "17.3 MiB" */
export function bytesText(bytes: number): string {
  let unit = 0;
  let value = bytes;
  while (value >= 1_024 && unit < UNITS.length - 1) {
    value /= 1_024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit]}`;
}

/** Rows for a table: each port, and below it its backends. */
export function statusRows(all: readonly ProxyStatus[]): readonly (readonly string[])[] {
  const rows: string[][] = [["LISTENING", "SERVICE", "OPEN", "TOTAL", "FAILED", "RETRIES", "TO BACKEND", "TO CLIENT"]];
  for (const { listening, protocol, query, open, total, failed, retries, toBackend, toClient, backends } of all) {
    rows.push([
      protocol === "udp" ? `${listening}/udp` : listening,
      textOfQuery(query, "consul"),
      ...[open, total, failed, retries].map(String),
      bytesText(toBackend),
      bytesText(toClient),
    ]);
    for (const each of backends)
      rows.push([
        `  ${hostPort(each.address, each.port)}`,
        "",
        String(each.open),
        String(each.total),
        String(each.failures),
        "",
        bytesText(each.toBackend),
        bytesText(each.toClient),
      ]);
  }
  return rows;
}
