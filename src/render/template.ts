// A file's content from a Go template: parsed once, made from what is known.
import { InputError } from "../base/error.ts";
import { parseGoTemplate } from "../wire/go-template/template.ts";
import { type Making, notOffered, renderFunctions } from "./functions.ts";
import type { Reading } from "./needs.ts";
import { fieldOf } from "./values.ts";

/** Makes a file's content; what it returns counts only where all it asked for is known. @throws InputError with file, line and column */
export type Content = (reading: Reading) => string;

const NOBODY: Reading = { get: () => undefined, lacks: () => {} };

/**
 * Parses a template with consul-template's functions.
 * @param name the file it comes from, for messages
 * @throws InputError with file, line and column, also for a function that there is not
 */
export function parseFileTemplate(source: string, name: string, env: (name: string) => string | undefined): Content {
  const making: Making = { reading: NOBODY, env };
  const template = parseGoTemplate(source, {
    functions: renderFunctions(making),
    notOffered,
    field: fieldOf,
    fault: (text, line, column) => new InputError(`${name}:${line}:${column}`, text),
  });
  return (reading) => {
    making.reading = reading;
    try {
      return template(undefined);
    } finally {
      making.reading = NOBODY;
    }
  };
}
