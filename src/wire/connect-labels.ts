// How a service's instances ask to be connected to, in their labels: trilith.balance, trilith.try, trilith.prefetch, trilith.prefetch-idle, trilith.locality, trilith.panic.
// Consul's metadata have no dots and variables of the environment no dashes, so trilith-balance and trilith_balance (SERVICE_TRILITH_BALANCE) are the same.
import { messageOf } from "../base/error.ts";
import { parseGoDuration } from "./duration.ts";
import { POLICIES, type Policy } from "./hook-table.ts";

/** What instances ask for; absent = nothing. */
export interface ConnectWishes {
  policy?: Policy;
  /** How long one try may take while other backends remain. */
  tryMs?: number;
  /** How many connections may be opened ahead, and how long they may stay unused. */
  prefetch?: number;
  prefetchIdleMs?: number;
  /** False: backends on this host and in its zone are not preferred. */
  locality?: boolean;
  /** Below this percentage of healthy instances all are answered. */
  panicPercent?: number;
}

/**
 * The wishes of a service's instances: of several that say different things the first one's count. What cannot be understood is left out and told
 * to `complain` as a sentence.
 */
export function connectWishes(
  instances: Iterable<Readonly<Record<string, string>>>,
  complain: (text: string) => void = () => {},
): ConnectWishes {
  const wishes: ConnectWishes = {};
  for (const labels of instances) {
    for (const key in labels) {
      const read = key.startsWith("trilith") ? SPELLINGS.get(key) : undefined;
      if (read === undefined) continue;
      const text = labels[key] as string;
      const said = read(text.trim(), wishes);
      if (said !== undefined) complain(`label ${key}=${text}: ${said}`);
    }
  }
  return wishes;
}

type Reader = (text: string, wishes: ConnectWishes) => string | undefined;

const READERS: readonly (readonly [label: string, read: Reader])[] = [
  [
    "trilith.balance",
    (text, wishes) => {
      const policy = POLICIES.find((each) => each === text.toLowerCase());
      if (policy === undefined) return `expected one of ${POLICIES.join(", ")}`;
      wishes.policy ??= policy;
      return undefined;
    },
  ],
  ["trilith.try", duration("tryMs", 10, 60_000)],
  [
    "trilith.prefetch",
    (text, wishes) => {
      if (!/^\d{1,3}$/.test(text)) return "expected a number of connections from 0 to 999";
      wishes.prefetch ??= Number(text);
      return undefined;
    },
  ],
  ["trilith.prefetch-idle", duration("prefetchIdleMs", 100, 3_600_000)],
  [
    "trilith.locality",
    (text, wishes) => {
      if (!/^(on|off|true|false)$/i.test(text)) return "expected on or off";
      wishes.locality ??= /^(on|true)$/i.test(text);
      return undefined;
    },
  ],
  [
    "trilith.panic",
    (text, wishes) => {
      const [, percent = ""] = /^(100|\d{1,2}) ?%?$/.exec(text) ?? [];
      if (percent === "") return "expected a percentage of healthy instances from 0 (never) to 100, such as 50";
      wishes.panicPercent ??= Number(percent);
      return undefined;
    },
  ],
];

/** By every spelling of a label. */
const SPELLINGS: ReadonlyMap<string, Reader> = new Map(
  READERS.flatMap(([label, read]) =>
    [label, label.replaceAll(".", "-"), label.replaceAll(/[.-]/g, "_")].map((spelling) => [spelling, read] as const),
  ),
);

function duration(key: "tryMs" | "prefetchIdleMs", leastMs: number, mostMs: number): Reader {
  return (text, wishes) => {
    let ms: number;
    try {
      ms = parseGoDuration(text);
    } catch (error) {
      return messageOf(error);
    }
    if (ms < leastMs || ms > mostMs)
      return `expected a duration from ${leastMs} ms to ${mostMs / 1000} s, such as 500ms`;
    wishes[key] ??= ms;
    return undefined;
  };
}
