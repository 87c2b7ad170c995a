// The functions that templates of files may call: consul-template's, over what is known while a file is made.
import type { TemplateFunction } from "../wire/go-template/action.ts";
import { goFunctions } from "../wire/go-template/functions.ts";
import { asInteger, asList, asText, fail, kindOf, print, truthy, type Value } from "../wire/go-template/values.ts";
import { compile } from "../wire/regexp.ts";
import type { Need, Reading, ServiceInstance } from "./needs.ts";
import { namedQuery, serviceQuery } from "./query.ts";
import { fieldOf, instanceValue, jsonValue, mapValue, missingIn, nodeValue, nodeWithServices } from "./values.ts";

/** What a template is made with at present. */
export interface Making {
  reading: Reading;
  env(name: string): string | undefined;
}

type Call = TemplateFunction["call"];
const takes = (least: number, most: number, call: Call): TemplateFunction => ({ least, most, call });

/** The functions of a template; they read what `making` holds when they are called. */
export function renderFunctions(making: Making): Readonly<Record<string, TemplateFunction>> {
  return Object.assign(goFunctions(missingIn), dataFunctions(making), listFunctions(), textFunctions(), arithmetic());
}

/** Functions of consul-template that a template here has no use for, with what to do instead. */
const ELSEWHERE: ReadonlyMap<string, string> = new Map([
  ["plugin", "a template may not run programs; run it beforehand and read what it wrote with file"],
  ["writeToFile", "a template writes its own file only; give another one a --template of its own"],
  ["executeTemplate", 'use Go\'s {{template "name" .}}'],
  ["connect", "there are no mesh certificates here"],
  ["caRoots", "there are no mesh certificates here"],
  ["caLeaf", "there are no mesh certificates here"],
]);

/** Why a function is not there that consul-template has. */
export function notOffered(name: string): string | undefined {
  if (/^(secrets?|pkiCert)$/.test(name)) return "there is no Vault here; use env, file or key";
  if (/^nomad/.test(name)) return "there is no Nomad here";
  if (/^sprig_/.test(name)) return "Sprig's functions are not here; Go's and consul-template's own are";
  return ELSEWHERE.get(name);
}

function dataFunctions(making: Making): Record<string, TemplateFunction> {
  const read = <N extends Need>(need: N): ReturnType<typeof making.reading.get<N>> => making.reading.get(need);
  const keyNeed = (text: Value, what: string): Extract<Need, { kind: "key" }> => {
    const { name, ...place } = namedQuery(asText(text, what), what);
    if (name === "") fail(`${what}: expected the key's name`);
    return { kind: "key", key: name.replace(/^\//, ""), ...place };
  };
  const pairs = (given: Value, what: string): readonly { readonly key: string; readonly value: string }[] => {
    const { name, ...place } = namedQuery(given === undefined ? "" : asText(given, what), what);
    const bare = name.replace(/^\/|\/$/g, "");
    const prefix = bare === "" ? "" : `${bare}/`;
    const found = read({ kind: "keys", prefix, ...place })?.value ?? [];
    return found
      .map(({ key, value }) => ({ key: key.slice(prefix.length), value }))
      .filter(({ key }) => key !== "" && !key.endsWith("/"));
  };
  const pairValue = ({ key, value }: { readonly key: string; readonly value: string }): Value => ({
    Path: key,
    Key: key,
    Value: value,
  });
  return {
    service: takes(1, 2, ([text, filter]) => {
      const also = filter === undefined ? "" : asText(filter, "service").replace(/^\|/, "");
      const { states, ...query } = serviceQuery(asText(text, "service"), also);
      const known = read({ kind: "service", ...query, health: "passing" })?.value;
      if (known === undefined) return [];
      const isMeant = ({ status }: ServiceInstance): boolean =>
        states === "answer" || states.has("any") || states.has(status);
      return (states === "answer" ? known.answer : known.all).filter(isMeant).map(instanceValue);
    }),
    services: takes(0, 1, ([place]) => {
      const { datacenter } = namedQuery(place === undefined ? "" : asText(place, "services"), "services");
      const known = read({ kind: "services", ...(datacenter === undefined ? {} : { datacenter }) });
      return (known?.value ?? []).map(({ name, tags }) => ({ Name: name, Tags: [...tags].sort() }));
    }),
    nodes: takes(0, 1, ([place]) => {
      const { datacenter } = namedQuery(place === undefined ? "" : asText(place, "nodes"), "nodes");
      return (read({ kind: "nodes", ...(datacenter === undefined ? {} : { datacenter }) })?.value ?? []).map(nodeValue);
    }),
    node: takes(0, 1, ([text]) => {
      const { name, ...place } = namedQuery(text === undefined ? "" : asText(text, "node"), "node");
      const known = read({ kind: "node", ...(name === "" ? {} : { node: name }), ...place })?.value;
      return known === undefined ? undefined : nodeWithServices(known);
    }),
    key: takes(1, 1, ([text]) => {
      const need = keyNeed(text, "key");
      const known = read(need);
      if (known !== undefined && known.value === undefined) making.reading.lacks(`key "${need.key}"`);
      return known?.value ?? "";
    }),
    keyExists: takes(1, 1, ([text]) => read(keyNeed(text, "keyExists"))?.value !== undefined),
    keyOrDefault: takes(2, 2, ([text, otherwise]) => {
      const found = read(keyNeed(text, "keyOrDefault"))?.value;
      return found === undefined || found === "" ? otherwise : found;
    }),
    ls: takes(0, 1, ([text]) =>
      pairs(text, "ls")
        .filter(({ key }) => !key.includes("/"))
        .map(pairValue),
    ),
    tree: takes(0, 1, ([text]) => pairs(text, "tree").map(pairValue)),
    file: takes(1, 1, ([path]) => {
      const name = asText(path, "file");
      const known = read({ kind: "file", path: name });
      if (known !== undefined && known.value === undefined) making.reading.lacks(`file "${name}"`);
      return known?.value ?? "";
    }),
    env: takes(1, 1, ([name]) => making.env(asText(name, "env")) ?? ""),
    envOrDefault: takes(2, 2, ([name, otherwise]) => making.env(asText(name, "envOrDefault")) ?? otherwise),
    mustEnv: takes(
      1,
      1,
      ([name]) => making.env(asText(name, "mustEnv")) ?? fail(`mustEnv: ${print(name)} is not in the environment`),
    ),
  };
}

/** Items by what each says of itself. */
function grouped(list: readonly Value[], keysOf: (item: Value) => readonly Value[]): Value {
  const groups = mapValue({});
  for (const item of list)
    for (const key of keysOf(item)) {
      const name = print(key);
      const group = groups[name] as Value[] | undefined;
      if (group === undefined) groups[name] = [item];
      else group.push(item);
    }
  return groups;
}

function contains(list: Value, item: Value, what: string): boolean {
  if (typeof list === "string") return list.includes(asText(item, what));
  if (kindOf(list) === "map") return Object.hasOwn(list as object, print(item));
  return asList(list, what).includes(item);
}

const SETS: Readonly<Record<string, (wanted: readonly Value[], list: readonly Value[]) => boolean>> = {
  containsAll: (wanted, list) => wanted.every((item) => list.includes(item)),
  containsAny: (wanted, list) => wanted.some((item) => list.includes(item)),
  containsNone: (wanted, list) => !wanted.some((item) => list.includes(item)),
  containsNotAll: (wanted, list) => !wanted.every((item) => list.includes(item)),
};

function listFunctions(): Record<string, TemplateFunction> {
  const sets = Object.entries(SETS).map(
    ([name, isSo]) => [name, takes(2, 2, ([wanted, list]) => isSo(asList(wanted, name), asList(list, name)))] as const,
  );
  return {
    ...Object.fromEntries(sets),
    byTag: takes(1, 1, ([list]) => grouped(asList(list, "byTag"), (item) => asList(fieldOf(item, "Tags"), "byTag"))),
    byPort: takes(1, 1, ([list]) => grouped(asList(list, "byPort"), (item) => [fieldOf(item, "Port")])),
    byMeta: takes(2, 2, ([keys, list]) =>
      grouped(asList(list, "byMeta"), (item) => [
        asText(keys, "byMeta")
          .split(",")
          .map((key) => print(fieldOf(fieldOf(item, "ServiceMeta"), key.split("|")[0] ?? "")))
          .join("_"),
      ]),
    ),
    contains: takes(2, 2, ([item, list]) => contains(list, item, "contains")),
    in: takes(2, 2, ([list, item]) => contains(list, item, "in")),
    loop: takes(1, 2, (numbers) => {
      const [a, b] = numbers.map((one) => asInteger(one, "loop"));
      const [from, to] = b === undefined ? [0, a ?? 0] : [a ?? 0, b];
      if (to - from > 1_000_000) fail(`loop: from ${from} to ${to} are too many`);
      return Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i);
    }),
    join: takes(2, 2, ([by, list]) => asList(list, "join").map(print).join(asText(by, "join"))),
    split: takes(2, 2, ([by, text]) => {
      const whole = asText(text, "split").trim();
      return whole === "" ? [] : whole.split(asText(by, "split"));
    }),
    parseJSON: takes(1, 1, ([text]) => (text === "" ? mapValue({}) : jsonValue(asText(text, "parseJSON")))),
    toJSON: takes(1, 1, ([value]) => JSON.stringify(value ?? null)),
    toJSONPretty: takes(1, 1, ([value]) => JSON.stringify(value ?? null, null, 2)),
  };
}

function numberIn(text: Value, what: string, isOne: RegExp): number {
  const whole = asText(text, what);
  if (whole === "") return 0;
  return isOne.test(whole) ? Number(whole) : fail(`${what}: ${JSON.stringify(whole)} is none`);
}

function textFunctions(): Record<string, TemplateFunction> {
  const text = (name: string, work: (whole: string) => string): [string, TemplateFunction] => [
    name,
    takes(1, 1, ([value]) => work(asText(value, name))),
  ];
  const isMatch = (pattern: Value, what: string) => {
    try {
      return compile(asText(pattern, what));
    } catch (error) {
      return fail(`${what}: ${print(pattern)} is not a regular expression: ${(error as Error).message}`);
    }
  };
  return {
    ...Object.fromEntries([
      text("toLower", (whole) => whole.toLowerCase()),
      text("toUpper", (whole) => whole.toUpperCase()),
      text("toTitle", (whole) =>
        whole.replace(/(^|\s)(\S)/g, (_, blank: string, first: string) => blank + first.toUpperCase()),
      ),
      text("trimSpace", (whole) => whole.trim()),
      text("base64Encode", (whole) => Buffer.from(whole).toString("base64")),
      text("base64Decode", (whole) => Buffer.from(whole, "base64").toString()),
    ]),
    replaceAll: takes(3, 3, ([old, by, whole]) =>
      asText(whole, "replaceAll").replaceAll(asText(old, "replaceAll"), () => asText(by, "replaceAll")),
    ),
    trimPrefix: takes(2, 2, ([prefix, whole]) => {
      const [head, all] = [asText(prefix, "trimPrefix"), asText(whole, "trimPrefix")];
      return all.startsWith(head) ? all.slice(head.length) : all;
    }),
    trimSuffix: takes(2, 2, ([suffix, whole]) => {
      const [tail, all] = [asText(suffix, "trimSuffix"), asText(whole, "trimSuffix")];
      return all.endsWith(tail) ? all.slice(0, all.length - tail.length) : all;
    }),
    indent: takes(2, 2, ([wide, whole]) =>
      asText(whole, "indent").replace(/^(?=.)/gm, " ".repeat(Math.max(0, asInteger(wide, "indent")))),
    ),
    regexMatch: takes(2, 2, ([pattern, whole]) => isMatch(pattern, "regexMatch").found(asText(whole, "regexMatch"))),
    parseInt: takes(1, 1, ([whole]) => numberIn(whole, "parseInt", /^[+-]?\d+$/)),
    parseFloat: takes(1, 1, ([whole]) => numberIn(whole, "parseFloat", /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i)),
    parseBool: takes(1, 1, ([whole]) => {
      const word = asText(whole, "parseBool");
      if (/^(1|t|true)$/i.test(word)) return true;
      return /^(0|f|false)?$/i.test(word) ? false : fail(`parseBool: ${JSON.stringify(word)}: expected true or false`);
    }),
  };
}

function arithmetic(): Record<string, TemplateFunction> {
  const one = (value: Value, what: string): number =>
    typeof value === "number" ? value : fail(`${what}: expected a number, found ${kindOf(value)}`);
  const of = (name: string, work: (a: number, b: number) => number): [string, TemplateFunction] => [
    name,
    // As in consul-template the value that comes through a pipe, the last one, is the left side.
    takes(2, 2, ([b, a]) => work(one(a, name), one(b, name))),
  ];
  const over = (name: string, work: (a: number, b: number) => number): [string, TemplateFunction] =>
    of(name, (a, b) => (truthy(b) ? work(a, b) : fail(`${name}: by zero`)));
  return Object.fromEntries([
    of("add", (a, b) => a + b),
    of("subtract", (a, b) => a - b),
    of("multiply", (a, b) => a * b),
    over("divide", (a, b) => (Number.isInteger(a) && Number.isInteger(b) ? Math.trunc(a / b) : a / b)),
    over("modulo", (a, b) => a % b),
    of("minimum", Math.min),
    of("maximum", Math.max),
  ]);
}
