// consul-template's way of naming what a template asks for: `[tag.]name[@datacenter][~near][|filter]`.
import { fail } from "../wire/go-template/values.ts";

/** A service as templates name it. */
export interface ServiceQuery {
  readonly service: string;
  readonly tag?: string;
  readonly datacenter?: string;
  readonly near?: string;
  /** Which instances: the agent's answer with all checks passing, or those of these states out of all. */
  readonly states: "answer" | ReadonlySet<string>;
}

const STATES: readonly string[] = ["any", "passing", "warning", "critical", "maintenance"];
const SERVICE = /^(?:([^@~|?\s]+)\.)?([^.@~|?\s]+)(?:@([\w.-]+))?(?:~([\w.-]+))?(?:\|([\w,]+))?$/;
const NAMED = /^([^@]*)(?:@([\w.-]+))?$/;

/** @throws TemplateFault saying what is expected */
export function serviceQuery(text: string, also = ""): ServiceQuery {
  if (text.includes("?"))
    fail(`service ${JSON.stringify(text)}: namespaces, partitions and peers (?…) are not known here`);
  const match = SERVICE.exec(text);
  if (match === null)
    return fail(
      `service ${JSON.stringify(text)}: expected [tag.]name[@datacenter][~near][|filter], such as "web" or "v1.web@dc2|any"`,
    );
  const [, tag, service = "", datacenter, near, filter = also] = match;
  const words = filter === "" ? ["passing"] : filter.split(",");
  for (const word of words)
    if (!STATES.includes(word))
      fail(`service ${JSON.stringify(text)}: filter "${word}": expected ${STATES.join(", ")}`);
  return {
    service,
    ...(tag === undefined ? {} : { tag }),
    ...(datacenter === undefined ? {} : { datacenter }),
    ...(near === undefined ? {} : { near }),
    states: words.length === 1 && words[0] === "passing" ? "answer" : new Set(words),
  };
}

/** `name[@datacenter]`, of a key, a prefix or a node; both may be missing. @throws TemplateFault */
export function namedQuery(text: string, what: string): { readonly name: string; readonly datacenter?: string } {
  const match = NAMED.exec(text);
  if (match === null) return fail(`${what} ${JSON.stringify(text)}: expected name[@datacenter]`);
  const [, name = "", datacenter] = match;
  return { name, ...(datacenter === undefined ? {} : { datacenter }) };
}
