// The functions that a -tags template may call: Registrator's own, and those of Go's text/template.
import { messageOf } from "../../../base/error.ts";
import type { TemplateFunction } from "../../../wire/go-template/action.ts";
import { goFunctions } from "../../../wire/go-template/functions.ts";
import { asInteger, asList, asText, fail, kindOf, print, type Value } from "../../../wire/go-template/values.ts";
import { compile, type Pattern } from "../../../wire/regexp.ts";
import { emptyOf, everyKeyOptional } from "./values.ts";

/** An element counted from the start, or from the end for negative numbers, held within the list. */
function element(list: readonly Value[], index: number, what: string): string {
  if (list.length === 0) return fail(`${what}: the list is empty`);
  const at = index < 0 ? Math.max(0, list.length + index) : Math.min(index, list.length - 1);
  return asText(list[at], what);
}

function pattern(text: string): Pattern {
  try {
    return compile(text);
  } catch (error) {
    return fail(`"${text}" is not a regular expression: ${messageOf(error)}`);
  }
}

/** Arguments each function takes: at least, at most. */
export const FUNCTIONS: Readonly<Record<string, TemplateFunction>> = Object.assign(goFunctions(emptyOf), {
  strSlice: {
    least: 1,
    most: 3,
    call: ([text, from, to]) => {
      const whole = asText(text, "strSlice");
      if (from === undefined) return whole;
      const start = asInteger(from, "strSlice");
      const end = to === undefined ? whole.length : asInteger(to, "strSlice");
      if (start < 0 || end < 0 || start > whole.length || end > whole.length) return whole;
      return end < start ? whole.slice(start) : whole.slice(start, end);
    },
  },
  sIndex: {
    least: 2,
    most: 2,
    call: ([i, list]) => element(asList(list, "sIndex"), asInteger(i, "sIndex"), "sIndex"),
  },
  mIndex: {
    least: 2,
    most: 2,
    call: ([key, map]) => {
      const from = (map ?? {}) as Record<string, unknown>;
      if (kindOf(from) !== "map") return fail(`mIndex: expected a map, found ${kindOf(map)}`);
      const name = asText(key, "mIndex");
      return Object.hasOwn(from, name) ? from[name] : "";
    },
  },
  toUpper: { least: 1, most: 1, call: ([text]) => asText(text, "toUpper").toUpperCase() },
  toLower: { least: 1, most: 1, call: ([text]) => asText(text, "toLower").toLowerCase() },
  replace: {
    least: 4,
    most: 4,
    call: ([times, old, by, text]) => {
      let left = asInteger(times, "replace");
      const [find, put, whole] = [asText(old, "replace"), asText(by, "replace"), asText(text, "replace")];
      if (left < 0) return whole.replaceAll(find, () => put);
      let done = "";
      let rest = whole;
      for (let at = rest.indexOf(find); left > 0 && at >= 0 && find !== ""; left--, at = rest.indexOf(find)) {
        done += rest.slice(0, at) + put;
        rest = rest.slice(at + find.length);
      }
      return done + rest;
    },
  },
  join: { least: 2, most: 2, call: ([by, list]) => asList(list, "join").map(print).join(asText(by, "join")) },
  split: { least: 2, most: 2, call: ([by, text]) => asText(text, "split").split(asText(by, "split")) },
  splitIndex: {
    least: 3,
    most: 3,
    call: ([i, by, text]) =>
      element(asText(text, "splitIndex").split(asText(by, "splitIndex")), asInteger(i, "splitIndex"), "splitIndex"),
  },
  matchFirstElement: {
    least: 2,
    most: 2,
    call: ([text, list]) => {
      const matches = pattern(asText(text, "matchFirstElement"));
      return asList(list, "matchFirstElement").find((item) => matches.found(print(item))) ?? "";
    },
  },
  matchAllElements: {
    least: 2,
    most: 2,
    call: ([text, list]) => {
      const matches = pattern(asText(text, "matchAllElements"));
      return asList(list, "matchAllElements").filter((item) => matches.found(print(item)));
    },
  },
  jsonParse: {
    least: 1,
    most: 1,
    call: ([text]) => {
      try {
        return everyKeyOptional(JSON.parse(asText(text, "jsonParse")));
      } catch (error) {
        return fail(`jsonParse: ${messageOf(error)}`);
      }
    },
  },
} satisfies Record<string, TemplateFunction>);
