// What `md list` prints of labels.
import { expect, it } from "vitest";
import { labelCell } from "./cli.ts";

it.each([
  [{}, "{}"],
  [{ zone: "eu", env: "prod" }, "{ env=prod, zone=eu }"],
  // md sorts whole texts, and "-" and digits come before "=".
  [{ a: "1", "a-b": "2", a1: "3", B: "", é: "x=y" }, "{ B=, a-b=2, a1=3, a=1, é=x=y }"],
])("%o: %s", (labels, cell) => {
  expect(labelCell({ labels, tags: [] }, (text) => text)).toBe(cell);
});
