// Copy-on-write trees in the order of UTF-8; a clone costs next to nothing.
import sortedBtree from "sorted-btree";
import { bulkLoad } from "sorted-btree/extended/bulkLoad.js";
import { compareUtf8 } from "../../model/order.ts";

export type Tree<V> = InstanceType<typeof sortedBtree.default<string, V>>;
// Node hands out the CommonJS module as it is, bundlers and test runners already unwrap its default export.
const BTree = sortedBtree.default ?? (sortedBtree as unknown as typeof sortedBtree.default);
const NODE_SIZE = 32;

/** A tree without entries, in the order of keys. */
export function emptyTree<V>(): Tree<V> {
  return new BTree<string, V>(undefined, compareUtf8, NODE_SIZE);
}

/** A tree of pairs that come in any order, each key once. */
export function treeOf<V>(pairs: readonly (readonly [string, V])[]): Tree<V> {
  const inOrder = pairs.every(
    (pair, i) => i === 0 || compareUtf8((pairs[i - 1] as readonly [string, V])[0], pair[0]) < 0,
  );
  const sorted = inOrder ? pairs : [...pairs].sort((a, b) => compareUtf8(a[0], b[0]));
  const keys = sorted.map(([key]) => key);
  return bulkLoad(
    keys,
    sorted.map(([, value]) => value),
    NODE_SIZE,
    compareUtf8,
  ) as Tree<V>;
}

/** The values under all keys that begin with a prefix. */
export function below<T>(tree: Tree<T>, prefix: string): T[] {
  const values: T[] = [];
  for (const [key, value] of tree.entries(prefix)) {
    if (!key.startsWith(prefix)) break;
    values.push(value);
  }
  return values;
}
