// The Go templates of Registrator's -tags: parsed once, run on a container's inspect object.
import { finish, type Pipe, Reader, readPipe, type Scope, type Variables } from "./tags-template/action.ts";
import { fail, print, truthy, type Value } from "./tags-template/values.ts";

/** A parsed template. @throws Error with Go's "template: tags:…" text where it does not fit the data */
export type Template = (data: unknown) => string;

type Node =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "print"; readonly pipe: Pipe }
  | { readonly kind: "if" | "with" | "range"; readonly pipe: Pipe; readonly body: Node[]; readonly otherwise: Node[] };

/** Cuts `text {{action}} text …` into pieces; `{{-` and `-}}` take the blanks beside them away. */
function cut(source: string): { readonly text: string; readonly action?: string }[] {
  const pieces: { text: string; action?: string }[] = [];
  let rest = source;
  let trim = false;
  for (;;) {
    const open = rest.indexOf("{{");
    let text = open < 0 ? rest : rest.slice(0, open);
    if (trim) text = text.trimStart();
    if (open < 0) {
      pieces.push({ text });
      return pieces;
    }
    const action = /^\{\{(- )?((?:"(?:[^"\\\n]|\\.)*"|`[^`]*`|\/\*[\s\S]*?\*\/|(?!\}\})[^"`])*?)( -)?\}\}/.exec(
      rest.slice(open),
    );
    if (action === null) fail("unclosed action");
    if (action[1] !== undefined) text = text.trimEnd();
    trim = action[3] !== undefined;
    const inside = (action[2] ?? "").trim();
    pieces.push(/^\/\*[\s\S]*\*\/$/.test(inside) ? { text } : { text, action: inside });
    rest = rest.slice(open + action[0].length);
  }
}

/**
 * Parses a template: fields, pipes, variables, if, with, range and Registrator's functions.
 * @throws InputError in the words of Go's text/template
 */
export function parseTemplate(source: string): Template {
  const top: Node[] = [];
  const open: { node: Extract<Node, { body: Node[] }>; into: Node[]; outer: ReadonlySet<string>; chained: boolean }[] =
    [];
  let into = top;
  let declared: ReadonlySet<string> = new Set();
  const close = (): void => {
    const block = open.pop() ?? fail("unexpected {{end}}");
    into = block.into;
    declared = block.outer;
    if (block.chained) close();
  };
  const begin = (kind: "if" | "with" | "range", reader: Reader, chained: boolean): void => {
    const outer = declared;
    const pipe = readPipe(reader, declared);
    const node = { kind, pipe, body: [], otherwise: [] };
    into.push(node);
    open.push({ node, into, outer, chained });
    into = node.body;
    declared = new Set([...declared, ...pipe.names]);
    finish(reader);
  };
  for (const { text, action } of cut(source)) {
    if (text !== "") into.push({ kind: "text", text });
    if (action === undefined) continue;
    const reader = new Reader(action);
    const word = reader.peek();
    if (word === "if" || word === "with" || word === "range") {
      reader.next();
      begin(word, reader, false);
    } else if (word === "else") {
      const block = open.at(-1) ?? fail("unexpected {{else}}");
      if (into === block.node.otherwise) fail("unexpected {{else}}");
      into = block.node.otherwise;
      reader.next();
      if (reader.take("if")) begin("if", reader, true);
      else finish(reader);
    } else if (word === "end") {
      reader.next();
      finish(reader);
      close();
    } else {
      const pipe = readPipe(reader, declared);
      finish(reader);
      into.push({ kind: "print", pipe });
      declared = new Set([...declared, ...pipe.names]);
    }
  }
  if (open.length > 0) fail("unexpected EOF: an {{end}} is missing");
  return (data) => run(top, { dot: data, root: data, variables: new Map() });
}

function bind(variables: Variables, names: readonly string[], values: readonly Value[]): Variables {
  const bound = new Map(variables);
  names.forEach((name, i) => {
    bound.set(name, { value: values[i] });
  });
  return bound;
}

function run(nodes: readonly Node[], outer: Scope): string {
  let out = "";
  let scope = outer;
  for (const node of nodes) {
    if (node.kind === "text") {
      out += node.text;
      continue;
    }
    const { names, assigns } = node.pipe;
    const value = node.pipe.value(scope);
    if (node.kind === "print") {
      if (names.length === 0) out += print(value);
      else if (assigns) for (const name of names) (scope.variables.get(name) as { value: Value }).value = value;
      else scope = { ...scope, variables: bind(scope.variables, names, [value]) };
    } else if (node.kind === "range") {
      const items: [Value, Value][] = Array.isArray(value)
        ? value.map((item, i) => [i, item])
        : Object.entries((value ?? {}) as object).sort(([a], [b]) => (a < b ? -1 : 1));
      for (const [key, item] of items)
        out += run(node.body, {
          ...scope,
          dot: item,
          variables: bind(scope.variables, names, names.length === 2 ? [key, item] : [item]),
        });
      if (items.length === 0) out += run(node.otherwise, scope);
    } else {
      const inner = { ...scope, variables: bind(scope.variables, names, [value]) };
      if (!truthy(value)) out += run(node.otherwise, inner);
      else out += run(node.body, node.kind === "with" ? { ...inner, dot: value } : inner);
    }
  }
  return out;
}
