// The Go templates of Registrator's -tags: parsed once, run on a container's inspect object.
import { InputError } from "../../base/error.ts";
import { parseGoTemplate, type Template } from "../../wire/go-template/template.ts";
import { FUNCTIONS } from "./tags-template/functions.ts";
import { field } from "./tags-template/values.ts";

export type { Template };

/** Registrator has it; here a template may not reach the network. */
const NOT_OFFERED: ReadonlyMap<string, string> = new Map([
  ["httpGet", "a template may not reach the network; put what it would fetch into a label"],
]);

/**
 * Parses a template: what Go's text/template knows, and Registrator's functions.
 * @throws InputError in the words of Go's text/template, also where the template does not fit a container
 */
export function parseTemplate(source: string): Template {
  return parseGoTemplate(source, {
    functions: FUNCTIONS,
    notOffered: (name) => NOT_OFFERED.get(name),
    field,
    fault: (text) => new InputError("", `template: tags: ${text}`),
  });
}
