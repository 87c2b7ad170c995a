// What counts as an object among values that came from outside: neither null nor a list.

/** Whether a value has fields by name. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
