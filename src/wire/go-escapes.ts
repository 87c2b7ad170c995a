// Go's escapes of one letter, as texts between double quotes have them in HCL and in Consul's filters.

/** What stands behind the backslash, and what it means [Go specification, Rune literals]. */
export const GO_ESCAPES: ReadonlyMap<string, string> = new Map([
  ["a", "\u0007"],
  ["b", "\b"],
  ["f", "\f"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
  ["v", "\v"],
  ["\\", "\\"],
  ['"', '"'],
]);
