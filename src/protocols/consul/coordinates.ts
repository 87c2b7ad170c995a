// Network coordinates: how they are kept, and what "near" means: round-trip times by Serf's formula, the closest first.
import type { Directory, View } from "../../contracts/directory.ts";
import { keyOf } from "../../model/record.ts";

/** The kind under which the directory keeps coordinates. */
export const COORDINATES = "consul.coordinate";
/** How many dimensions Serf's coordinates have. */
export const DIMENSIONS = 8;

/** A place in Serf's network space. Everything in seconds. */
export interface Coordinate {
  readonly Vec: readonly number[];
  readonly Error: number;
  readonly Adjustment: number;
  readonly Height: number;
}

/** A node's coordinate as the directory keeps it. */
export interface KeptCoordinate {
  readonly node: string;
  readonly segment: string;
  readonly coordinate: Coordinate;
  /** Where the node's agent can be asked for a round trip, if an agent told it itself. */
  readonly port?: number;
}

/** Where a node stands of which nothing is known, as Serf starts. */
export const ORIGIN: Coordinate = {
  Vec: Array.from({ length: DIMENSIONS }, () => 0),
  Error: 1.5,
  Adjustment: 0,
  Height: 0.00001,
};

/** The key of a node's coordinate within its kind: one per network segment. */
export function coordinateId(node: string, segment: string): string {
  return `${node.toLowerCase()}/${segment}`;
}

/** The coordinates of one node, by segment; none where the node is gone or nobody told any. */
export function coordinatesOf(view: View, node: string): readonly KeptCoordinate[] {
  const name = view.get("node", keyOf.node(node))?.name;
  if (name === undefined) return [];
  // A node's name may hold a slash: below "a/" there is also what belongs to "a/b".
  return Array.from(
    view.list("kept", keyOf.kept(COORDINATES, coordinateId(node, ""))),
    ({ value }) => value as KeptCoordinate,
  ).filter((kept) => kept.node.toLowerCase() === node.toLowerCase());
}

/** Keeps a node's coordinate, and takes away those of nodes that are gone. @throws TrilithError `unavailable` */
export async function tellCoordinate(
  directory: Pick<Directory, "view" | "write">,
  kept: KeptCoordinate,
  signal: AbortSignal,
): Promise<void> {
  const view = directory.view();
  const id = coordinateId(kept.node, kept.segment);
  const orphans = Array.from(view.list("kept", keyOf.ofKind(COORDINATES))).filter(
    ({ value }) => view.get("node", keyOf.node((value as KeptCoordinate).node)) === undefined,
  );
  const written = await directory.write(
    [
      { op: "put", table: "kept", key: keyOf.kept(COORDINATES, id), value: { kind: COORDINATES, id, value: kept } },
      ...orphans.map((one) => ({ op: "delete", table: "kept", key: keyOf.kept(COORDINATES, one.id) }) as const),
    ],
    [],
    signal,
  );
  if (written.result === "unknown") throw written.cause;
}

/** Seconds between two coordinates [Serf, coordinate.DistanceTo]; infinite where they cannot be compared. */
export function distanceS(a: Coordinate | undefined, b: Coordinate | undefined): number {
  if (a === undefined || b === undefined || a.Vec.length !== b.Vec.length) return Number.POSITIVE_INFINITY;
  let squares = 0;
  for (const [i, x] of a.Vec.entries()) squares += (x - (b.Vec[i] as number)) ** 2;
  // What both bring is added up first, so that the last bit does not depend on who asks: where the adjusted distance is about zero it decides.
  const raw = Math.sqrt(squares) + (a.Height + b.Height);
  const adjusted = raw + (a.Adjustment + b.Adjustment);
  return adjusted > 0 ? adjusted : raw;
}

/** Two nodes are compared by the segment they share; a node with one segment only stands in that one for all. */
function shared(
  a: readonly KeptCoordinate[],
  b: readonly KeptCoordinate[],
): readonly [Coordinate | undefined, Coordinate | undefined] {
  const segment = a.length === 1 ? a[0]?.segment : b.length === 1 ? b[0]?.segment : "";
  const of = (all: readonly KeptCoordinate[]): Coordinate | undefined =>
    all.find((one) => one.segment === segment)?.coordinate;
  return [of(a), of(b)];
}

/**
 * The items with those of the closest nodes first, otherwise in their order. The node itself is closest of all; nodes without
 * coordinates come last. `near` "" = as they are.
 */
export function nearestFirst<T>(
  view: View,
  near: string,
  items: readonly T[],
  nodeOf: (item: T) => string,
): readonly T[] {
  if (near === "" || items.length < 2) return items;
  const source = coordinatesOf(view, near);
  const known = new Map<string, number>();
  const distance = (node: string): number => {
    let found = known.get(node);
    if (found === undefined) {
      found = node.toLowerCase() === near.toLowerCase() ? -1 : distanceS(...shared(source, coordinatesOf(view, node)));
      known.set(node, found);
    }
    return found;
  };
  // Not by subtraction: two infinities would make NaN.
  return items.toSorted((a, b) => {
    const [x, y] = [distance(nodeOf(a)), distance(nodeOf(b))];
    return x === y ? 0 : x < y ? -1 : 1;
  });
}
