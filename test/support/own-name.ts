// Names for what a test leaves behind in an agent or a peer that all tests of its file share: a second try of the same test begins with others.
let given = 0;

/** `what` with a number that no other call in this file got. Ask in the test's body, not beside it: each try is to have its own. */
export const ownName = (what: string): string => `${what}-${++given}`;
