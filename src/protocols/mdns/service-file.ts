// Avahi's service files (XML): a text → the services under one name that it publishes, or an error with line and reason.
import { InputError } from "../../base/error.ts";
import { parseXml, type XmlElement } from "../../wire/xml.ts";
import type { Group, Service } from "./engine.ts";
import { entitiesOf, textOfXmlBytes } from "./service-file-text.ts";
import {
  atoi,
  domainName,
  hostName,
  instanceName,
  serviceType,
  subtypeOf,
  tooMuchTxt,
  txtString,
  type ValueFormat,
} from "./service-file-values.ts";

/** What a service file says. */
export interface ServiceFile {
  /** As it is written, wildcards included. */
  readonly name: string;
  /** True: "%h" stands for the host's label. */
  readonly replaceWildcards: boolean;
  /** At least one, in the order of the file. */
  readonly services: readonly Service[];
  /** What was skipped, though the rest of the file counts: "web.service:7:5: …". */
  readonly warnings: readonly string[];
}

/** Avahi's DTD. A file may name another one or none. */
const PARTS: readonly string[] = ["type", "subtype", "domain-name", "host-name", "port", "txt-record"];

/**
 * Reads a service file as Avahi 0.8 does [avahi.service(5)]: one element or attribute that does not belong there, or one value that cannot be published, refuses the whole
 * file; subtypes that are none are skipped with a warning. An element that stands twice: the texts of name, type, host-name and domain-name are joined, the last port counts.
 * Stricter than Avahi where DNS-SD is: what holds other characters than letters, digits, "-" and "_" is no type [RFC 6763 §7], a subtype of another type is skipped [§7.1].
 * @param where the file's name, for messages
 * @throws InputError at `where:line:column`
 */
export function parseServiceFile(content: Uint8Array | string, where: string): ServiceFile {
  const text = typeof content === "string" ? content : textOfXmlBytes(content, where);
  const root = parseXml(text, where, (doctype) => entitiesOf(doctype, text, where));
  const refuse = (element: XmlElement, reason: string): never => {
    throw new InputError(`${where}:${element.line}:${element.column}`, reason);
  };
  const warnings: string[] = [];

  /** Refuses attributes but one; its value. */
  const attribute = (element: XmlElement, allowed?: string): string | undefined => {
    for (const key of element.attributes.keys())
      if (key !== allowed)
        refuse(
          element,
          `<${element.name}> has no attribute "${key}"${allowed === undefined ? "" : `; there is "${allowed}"`}`,
        );
    return allowed === undefined ? undefined : element.attributes.get(allowed);
  };
  const expect = (parent: XmlElement, allowed: readonly string[]): void => {
    for (const child of parent.children)
      if (!allowed.includes(child.name))
        refuse(
          child,
          `<${child.name}> does not belong into <${parent.name}>${allowed.length === 0 ? "" : `; ${allowed.map((name) => `<${name}>`).join(", ")} do`}`,
        );
  };
  const named = (parent: XmlElement, name: string): XmlElement[] =>
    parent.children.filter((child) => child.name === name);
  const joined = (parent: XmlElement, name: string): string =>
    named(parent, name)
      .map(({ text: piece }) => piece)
      .join("");

  if (root.name !== "service-group") refuse(root, `<${root.name}> is no <service-group>`);
  attribute(root);
  expect(root, ["name", "service"]);
  let replaceWildcards = false;
  for (const element of named(root, "name")) {
    expect(element, []);
    const wildcards = attribute(element, "replace-wildcards");
    if (wildcards !== undefined) replaceWildcards = wildcards === "yes";
  }
  const services: Service[] = [];
  for (const element of named(root, "service")) {
    const service = serviceOf(element);
    const rival = services.find((other) => collide(other, service));
    if (rival !== undefined)
      refuse(element, `a second ${service.type} under the same name; another type, domain or protocol would do`);
    services.push(service);
  }
  const name = joined(root, "name");
  if (name === "") refuse(root, "the group has no <name>");
  if (services.length === 0) refuse(root, "the group has no <service>");
  if (!replaceWildcards && instanceName(name) === undefined)
    refuse(named(root, "name")[0] ?? root, nameFault(name, "written"));
  return { name, replaceWildcards, services, warnings };

  function serviceOf(element: XmlElement): Service {
    const protocol = attribute(element, "protocol") ?? "any";
    if (!/^(ipv4|ipv6|any)$/.test(protocol))
      refuse(element, `protocol="${protocol}" is none; "ipv4", "ipv6" and "any" are`);
    expect(element, PARTS);
    for (const part of element.children) {
      expect(part, []);
      attribute(part, part.name === "txt-record" ? "value-format" : undefined);
    }
    const writtenType = joined(element, "type");
    if (writtenType === "") refuse(element, "the service has no <type>");
    const type = serviceType(writtenType);
    if (type === undefined)
      return refuse(
        named(element, "type")[0] ?? element,
        `"${writtenType}" is no type of service such as "_http._tcp"`,
      );
    const host = joined(element, "host-name");
    if (host !== "" && hostName(host) === undefined)
      refuse(named(element, "host-name")[0] ?? element, `"${host}" is no host's whole name such as "db.example.com"`);
    const domain = joined(element, "domain-name");
    if (domain !== "" && domainName(domain) === undefined)
      refuse(named(element, "domain-name")[0] ?? element, `"${domain}" is no domain name`);
    let port = 0;
    for (const each of named(element, "port")) {
      port = atoi(each.text);
      if (port < 0 || port > 0xffff) refuse(each, `port "${each.text.trim()}": 0 to 65535 are allowed`);
    }
    const txt = named(element, "txt-record").map((each) => {
      const format = each.attributes.get("value-format") ?? "text";
      if (!/^(text|binary-hex|binary-base64)$/.test(format))
        refuse(each, `value-format="${format}" is none; "text", "binary-hex" and "binary-base64" are`);
      const bytes = txtString(each.text, format as ValueFormat);
      return "fault" in bytes ? refuse(each, bytes.fault) : bytes;
    });
    const tooMuch = tooMuchTxt(txt);
    if (tooMuch !== undefined) refuse(element, tooMuch);
    const subtypes = new Map<string, string>();
    for (const each of named(element, "subtype")) {
      const subtype = subtypeOf(each.text, type);
      if (subtype !== undefined) subtypes.set(subtype.toLowerCase(), subtypes.get(subtype.toLowerCase()) ?? subtype);
      else
        warnings.push(
          `${where}:${each.line}:${each.column}: "${each.text}" is skipped: it is no subtype of ${type} such as "_printer._sub.${type}"`,
        );
    }
    return {
      type,
      port,
      ...(subtypes.size === 0 ? {} : { subtypes: [...subtypes.values()] }),
      ...(txt.length === 0 ? {} : { txt }),
      ...(host === "" ? {} : { host: hostName(host) as string }),
      ...(domain === "" ? {} : { domain: domainName(domain) as string }),
      ...(protocol === "any" ? {} : { family: protocol === "ipv4" ? 4 : 6 }),
    };
  }
}

/** True where two services under one name would be the same records. */
export function collide(a: Service, b: Service): boolean {
  const same = (one: string, other: string): boolean => one.toLowerCase() === other.toLowerCase();
  return (
    same(a.type, b.type) &&
    same(a.domain ?? "local", b.domain ?? "local") &&
    (a.family === undefined || b.family === undefined || a.family === b.family)
  );
}

/**
 * What a file publishes on a host. @param hostLabel the host's name without its domain
 * @throws InputError at `where` when the name is longer than 63 bytes with the host's label in it
 */
export function groupOf(file: ServiceFile, hostLabel: string, where: string): Group {
  const name = file.replaceWildcards ? file.name.replaceAll("%h", hostLabel) : file.name;
  if (instanceName(name) === undefined) throw new InputError(where, nameFault(name, "with the host's name in it"));
  return { name, services: file.services };
}

function nameFault(name: string, how: string): string {
  return `the name "${name}" has ${Buffer.byteLength(name, "utf8")} bytes as ${how}; 63 are allowed`;
}
