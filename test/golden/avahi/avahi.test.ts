// Service files that were given to Avahi 0.8, and what avahi-browse then printed: ours takes and refuses the same files and prints the same lines.
import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import type { Found, Group, Resolved, Service } from "../../../src/protocols/mdns/engine.ts";
import { columnsOf, resolvedText, type Style, serviceLine } from "../../../src/protocols/mdns/format.ts";
import { groupOf, parseServiceFile } from "../../../src/protocols/mdns/service-file.ts";
import { namedTypes, typeName } from "../../../src/protocols/mdns/types.ts";

interface Recorded {
  readonly name: string;
  readonly file: string;
  readonly browse: Readonly<Record<string, string>>;
  readonly refused: readonly string[];
}

const load = async <T>(name: string): Promise<T> =>
  JSON.parse(await readFile(new URL(name, import.meta.url), "utf8")) as T;
const recorded = (await load<{ cases: readonly Recorded[] }>("./service-files.json")).cases;

/** Two cases were not UTF-8; the recording writes their bytes as \xHH. */
function bytesOf({ name, file }: Recorded): Uint8Array {
  if (name !== "xml-latin1" && name !== "xml-bad-utf8") return Buffer.from(file, "utf8");
  return Buffer.from(
    file.replace(/\\x([0-9a-f]{2})/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16))),
    "latin1",
  );
}

interface Lan {
  readonly hostLabel: string;
  readonly addresses: readonly { readonly address: string; readonly family: 4 | 6 }[];
}

/** What a browser in the same LAN knows of a group, at both families of its only interface; without addresses for hosts that nobody has. */
function seen(group: Group, service: Service, { hostLabel, addresses }: Lan): (Found & Partial<Resolved>)[] {
  const host = service.host ?? `${hostLabel}.local`;
  const known = host === `${hostLabel}.local`;
  return ([6, 4] as const)
    .filter((family) => service.family === undefined || service.family === family)
    .map((family) => ({
      interface: "eth0",
      family,
      name: group.name,
      type: service.type,
      domain: service.domain ?? "local",
      local: false,
      ...(known ? { host, port: service.port, priority: 0, weight: 0, txt: service.txt ?? [], addresses } : {}),
    }));
}

const STYLE: Style = { parsable: false, columns: columnsOf(undefined) };

/** What avahi-browse prints with these flags. */
function browsed(groups: readonly Group[], flags: string, lan: Lan): string[] {
  const words = flags.split(" ");
  const style = { ...STYLE, parsable: words.includes("-p") };
  const wanted = words.find((word) => word.startsWith("_"))?.toLowerCase();
  const shown = (type: string): string => (words.includes("-k") ? type : typeName(type));
  const out: string[] = [];
  for (const group of groups)
    for (const service of group.services) {
      if ((service.domain ?? "local").toLowerCase() !== "local") continue;
      const names = [service.type, ...(service.subtypes ?? []).map((sub) => `${sub}._sub.${service.type}`)];
      if (wanted !== undefined && !names.some((name) => name.toLowerCase() === wanted)) continue;
      for (const found of seen(group, service, lan)) {
        const line = { ...found, type: shown(found.type) };
        out.push(`${serviceLine("+", line, style)}\n`);
        if (words.includes("-r") && found.host !== undefined)
          out.push(resolvedText(found as Resolved, line.type, style));
      }
    }
  return out;
}

/** Blocks (a "=" block for people has several lines), sorted; which of a host's addresses stands in a "=" line is left to chance in Avahi. */
function blocks(text: string, { addresses }: Lan): string[] {
  let plain = text;
  for (const { address } of addresses) plain = plain.replaceAll(address, "ADDRESS");
  return plain.split(/\n(?! {3}[a-z])/).sort();
}

const LAN: Lan = {
  hostLabel: "host-a",
  addresses: [
    { address: "fd77::a", family: 6 },
    { address: "10.77.0.10", family: 4 },
  ],
};

test("there are as many recordings as there were", () => {
  expect(recorded.length).toBe(56);
  expect(recorded.filter(({ refused }) => refused.length > 0).length).toBeGreaterThan(10);
});

test.each(recorded.map((each) => [each.name, each] as const))("%s", (_, each) => {
  // A refused subtype does not refuse the file.
  const refused = each.refused.some((line) => !line.includes("ignoring subtype"));
  if (refused) {
    expect(() => parseServiceFile(bytesOf(each), "case.service")).toThrow(/^case\.service:\d+(:\d+)?: /);
    for (const printed of Object.values(each.browse)) expect(printed).toBe("");
    return;
  }
  const file = parseServiceFile(bytesOf(each), "case.service");
  expect(file.warnings.length).toBe(each.refused.length);
  const group = groupOf(file, LAN.hostLabel, "case.service");
  let compared = 0;
  for (const [command, printed] of Object.entries(each.browse)) {
    const flags = command.replace(/^[^:]*: /, "");
    // -D asks for domains and -l leaves out what the host has itself: not a matter of lines.
    if (flags.includes("-D") || flags.includes("-l")) expect(printed).toBe("");
    else {
      // One recording has standard error in it.
      const body = printed.replace(/^(: (Cache exhausted|All for now)|Failed to resolve service .*)\n/gm, "");
      expect(blocks(browsed([group], flags, LAN).join(""), LAN), flags).toEqual(blocks(body, LAN));
      compared++;
    }
  }
  expect(compared).toBeGreaterThan(5);
});

interface More {
  readonly about: { readonly batches: readonly { readonly names: readonly string[]; readonly browse: string }[] };
  readonly cases: readonly { readonly name: string; readonly hex: string; readonly refused: readonly string[] }[];
}
const more = await load<More>("./more-files.json");
const MORE_LAN: Lan = {
  hostLabel: "host-a",
  addresses: [
    { address: "fd78::a", family: 6 },
    { address: "10.78.0.10", family: 4 },
  ],
};

/** Where ours is stricter than Avahi, and why. */
const STRICTER: Readonly<Record<string, RegExp>> = {
  "type-escape": /no type of service/, // RFC 6763 §7
  "type-space": /no type of service/,
  "type-utf8": /no type of service/,
  "entity-internal-markup": /holds markup/, // entities are texts
  "txt-total-huge": /fit a packet/, // RFC 6762 §17; Avahi never gets it announced
};
/** Where the group is taken, but something in it is not. */
const OTHERWISE = new Set([
  "attr-default-dtd", // attributes that only a DTD gives
  "same-name-2", // two files of one name: the folder's business
]);

test.each(more.cases.map((each) => [each.name, each] as const))("more: %s", (name, each) => {
  const parse = (): Group => groupOf(parseServiceFile(Buffer.from(each.hex, "hex"), name), "host-a", name);
  if (STRICTER[name] !== undefined) {
    expect(each.refused).toEqual([]);
    expect(parse).toThrow(STRICTER[name]);
  } else if (each.refused.some((line) => !line.includes("ignoring subtype")) && !OTHERWISE.has(name))
    expect(parse).toThrow(/^[a-z0-9-]+(:\d+(:\d+)?)?: /i);
  else parse();
});

test.each(more.about.batches.map((batch, i) => [i, batch] as const))("more: what batch %i prints", (_, batch) => {
  const names = batch.names.filter((name) => STRICTER[name] === undefined && !OTHERWISE.has(name));
  const groups: Group[] = [];
  for (const name of names) {
    const { hex, refused } = more.cases.find((each) => each.name === name) as More["cases"][number];
    if (refused.every((line) => line.includes("ignoring subtype")))
      groups.push(groupOf(parseServiceFile(Buffer.from(hex, "hex"), name), "host-a", name));
  }
  const strange = batch.names.filter((name) => !names.includes(name));
  // Where the daemon of that batch still showed a group of the batch before, or what ours does not take.
  const foreign = new RegExp(`;(${[...strange.map(shownName), "twin\\\\032protocols"].join("|")});`);
  const ours = browsed(groups, "-a -r -t -p -k", MORE_LAN)
    .join("")
    .split("\n")
    .filter((line) => !foreign.test(line));
  const printed = batch.browse.split("\n").filter((line) => !foreign.test(line));
  const lines = (list: readonly string[]): string[] => blocks(list.join("\n").replace(/;LOCAL;/g, ";local;"), MORE_LAN);
  expect(lines(ours.filter((line) => line !== ""))).toEqual(lines(printed.filter((line) => line !== "")));
});

/** How the groups that ours does not take are shown. */
function shownName(name: string): string {
  const shown: Readonly<Record<string, string>> = {
    "type-escape": "type\\\\032escape",
    "type-space": "type\\\\032space",
    "type-utf8": "type\\\\032utf8",
    "entity-internal-markup": "entmark",
    "txt-total-huge": "txt\\\\032huge",
    "attr-default-dtd": "defattr\\\\032[^;]*",
    "same-name-2": "same\\\\032name",
  };
  return shown[name] as string;
}

test("names of types are Avahi's, all and only these", async () => {
  const { types } = await load<{ types: Readonly<Record<string, string>> }>("./types.json");
  expect(Object.fromEntries(namedTypes())).toEqual(types);
});

const scenarios = (await load<{ cases: readonly unknown[] }>("./scenarios.json")).cases;

/** What an escaped label stands for. */
function unescaped(text: string): string {
  const bytes = text.replace(/\\(\d{3}|[^\d])/g, (_, what: string) =>
    what.length === 3 ? String.fromCharCode(Number(what)) : what,
  );
  return Buffer.from(bytes, "latin1").toString("utf8");
}

/** The strings of a TXT record in the order of the wire, from their print. */
function stringsOf(printed: string): Uint8Array[] {
  const strings = [...printed.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, text = ""]) =>
    Buffer.from(
      text.replace(/\\(\d{3}|.)/g, (_, what: string) =>
        what.length === 3 ? String.fromCharCode(Number(what)) : what,
      ),
      "latin1",
    ),
  );
  return strings.reverse();
}

/** Every text anywhere in a recording. */
function textsIn(value: unknown): string[] {
  if (typeof value === "string") return [value];
  return typeof value === "object" && value !== null ? Object.values(value).flatMap(textsIn) : [];
}

test("every parsable line of every recording is the line that ours prints for what it says", () => {
  const lines = [
    ...new Set(
      textsIn([scenarios, recorded])
        .flatMap((text) => text.split("\n"))
        .filter((line) => /^[+=-];eth0;IPv[46];/.test(line)),
    ),
  ];
  let resolved = 0;
  for (const line of lines) {
    const sign = line[0] as "+" | "-" | "=";
    const [, at = "", protocol = "", name = "", type = "", domain = "", host = "", address = "", port = "", ...txt] =
      line.split(";");
    const found = {
      interface: at,
      family: protocol === "IPv6" ? 6 : 4,
      name: unescaped(name),
      type,
      domain,
      local: false,
    } as const;
    const style = { parsable: true, columns: 80 };
    if (sign !== "=") expect(serviceLine(sign, found, style)).toBe(line);
    else {
      const addresses = [{ address, family: address.includes(":") ? 6 : 4 }] as const;
      const whole = { ...found, host: unescaped(host), port: Number(port), priority: 0, weight: 0, addresses };
      expect(resolvedText({ ...whole, txt: stringsOf(txt.join(";")) }, type, style)).toBe(`${line}\n`);
      resolved++;
    }
  }
  expect(lines.length).toBeGreaterThan(300);
  expect(resolved).toBeGreaterThan(100);
});
