// XML texts ↔ trees of elements that know their place, for dialects that speak XML (Eureka's bodies, Avahi's service files).
import { SaxesParser } from "saxes";
import { InputError } from "../base/error.ts";

/** One element: its attributes, its elements in order, and its own text with that of entities and CDATA, not that of its elements. */
export interface XmlElement {
  readonly name: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: readonly XmlElement[];
  readonly text: string;
  /** Where its start tag stands, from 1. */
  readonly line: number;
  readonly column: number;
}

interface Growing extends XmlElement {
  readonly children: Growing[];
  text: string;
}

/** Deeper nesting is nobody's document. */
const DEEPEST = 64;

/**
 * The root element of a text. Entities are the five of XML and numbers; what a DOCTYPE declares is not looked at unless `entities` does, nothing outside
 * the text is read [XML 1.0, fifth edition]. @param entities given what stands in the DOCTYPE, the texts of further entities by their names; they are
 * taken as characters, never as markup. @throws InputError at `where:line:column` for what is not well-formed
 */
export function parseXml(
  text: string,
  where = "",
  entities?: (doctype: string) => ReadonlyMap<string, string>,
): XmlElement {
  const parser = new SaxesParser({ xmlns: false, position: true });
  const open: Growing[] = [];
  let root: Growing | undefined;
  let at = { line: 1, column: 1 };
  const fail = (message: string, line: number, column: number): never => {
    throw new InputError(`${where}${where === "" ? "" : ":"}${line}:${column}`, message);
  };
  parser.on("error", (error) => {
    // The library puts its own place in front.
    fail(`not well-formed XML: ${error.message.replace(/^(\S+:)?\d+:\d+: /, "")}`, parser.line, parser.column + 1);
  });
  if (entities !== undefined)
    parser.on("doctype", (doctype) => {
      for (const [name, text] of entities(doctype)) parser.ENTITIES[name] = text;
    });
  parser.on("opentagstart", ({ name }) => {
    // One character behind the name has been read; where that was a line's end, only the line before is known.
    const { line, column } = parser;
    at = column === 0 ? { line: line - 1, column: 1 } : { line, column: column - name.length - 1 };
  });
  parser.on("opentag", ({ name, attributes }) => {
    const element: Growing = { name, attributes: new Map(Object.entries(attributes)), children: [], text: "", ...at };
    if (open.length >= DEEPEST) fail(`elements are nested deeper than ${DEEPEST}`, at.line, at.column);
    open.at(-1)?.children.push(element);
    root ??= element;
    open.push(element);
  });
  const add = (piece: string): void => {
    const element = open.at(-1);
    if (element !== undefined) element.text += piece;
  };
  parser.on("text", add);
  parser.on("cdata", add);
  parser.on("closetag", () => {
    open.pop();
  });
  parser.write(text).close();
  return root ?? fail("there is no element", 1, 1);
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&apos;",
};

/** A text as it may stand in an element or an attribute; characters that XML 1.0 cannot hold become U+FFFD. */
export function escapeXml(text: string): string {
  return text
    .replace(/[&<>"']/g, (each) => ENTITIES[each] ?? each)
    .replace(/\r/g, "&#13;")
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Surrogate}/gu, "\ufffd");
}
