// Which known name somebody most likely meant who wrote one that there is not.

/** How names are compared: case and underscores do not count. */
export const plainName = (key: string): string => key.replaceAll("_", "").toLowerCase();

/** Edit distance with neighbours swapped counting once (optimal string alignment) up to `limit`; more than `limit` for anything farther. */
function distance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) > limit) return limit + 1;
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let best = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, before[j - 2]! + 1);
      next.push(best);
    }
    before = row;
    row = next;
  }
  return row[b.length]!;
}

/** The name out of `known` that `key` was most likely meant to be; undefined where none is near. Case and underscores do not count. */
export function nearestName(key: string, known: Iterable<string>): string | undefined {
  const wanted = plainName(key.slice(0, 64));
  let best: string | undefined;
  let bestDistance = Math.min(3, Math.floor(wanted.length / 3)) + 1;
  for (const name of known) {
    const d = distance(wanted, plainName(name), bestDistance - 1);
    if (d < bestDistance) {
      best = name;
      bestDistance = d;
    }
  }
  return best;
}
