// What lets a test be tried again beside an agent or a peer that all tests of its file share: names of its own for what it leaves there, and whether a try went before.
import type { TestContext } from "vitest";

let given = 0;

/** `what` with a number that no other call in this file got. Ask in the test's body, not beside it: each try is to have its own. */
export const ownName = (what: string): string => `${what}-${++given}`;

/** In a hook: this try follows one that failed, wherever it stopped. */
export const triedBefore = ({ task }: TestContext): boolean => (task.result?.retryCount ?? 0) > 0;
