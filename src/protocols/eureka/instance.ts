// An instance as Eureka tells it: read from JSON or XML, checked, and kept as it was told so that its clients get it back.
import { InputError } from "../../base/error.ts";
import type { XmlElement } from "../../wire/xml.ts";

/** Eureka's words for health, from InstanceInfo.InstanceStatus. */
const STATUSES = ["UP", "DOWN", "STARTING", "OUT_OF_SERVICE", "UNKNOWN"] as const;
export type EurekaStatus = (typeof STATUSES)[number];

/** A value of the JSON form; in objects made from input no key has a prototype behind it. */
export type Told = string | number | boolean | null | readonly Told[] | { readonly [key: string]: Told };
export type ToldObject = { readonly [key: string]: Told };

/** What is understood of an instance, and in `told` all of it in the spelling of the JSON form (InstanceInfo of eureka-client 1.x). */
export interface InstanceInfo {
  /** In upper case, as Eureka keeps application names. */
  readonly app: string;
  /** `instanceId`; for clients that send none the instance ID of the data centre, else the host name. */
  readonly id: string;
  readonly hostName: string;
  readonly ipAddr: string;
  /** The port that is switched on; the secure one where only that is; 0 = none. */
  readonly port: number;
  readonly secure: boolean;
  readonly status: EurekaStatus;
  readonly metadata: Readonly<Record<string, string>>;
  readonly vip: string;
  readonly secureVip: string;
  /** Without a heartbeat for so long the lease ends; 90 s unless told. */
  readonly leaseMs: number;
  /** The client's own clock; 0 = not told. */
  readonly lastDirtyMs: number;
  readonly told: ToldObject;
}

const LEASE_MS = 90_000;
const MOST_LEASE_S = 86_400;
/** Elements that are lists or maps in the JSON form only by name. */
const XML_PORTS: ReadonlySet<string> = new Set(["port", "securePort"]);

/** The body of a registration. @throws InputError that names the field, in Eureka's words where it has some */
export function instanceFromJson(text: string, app: string): InstanceInfo {
  let body: unknown;
  try {
    body = JSON.parse(text, (_key, value: unknown) =>
      value !== null && typeof value === "object" && !Array.isArray(value)
        ? Object.assign(Object.create(null), value)
        : value,
    );
  } catch (error) {
    throw new InputError("body", `expected JSON: ${(error as Error).message}`, error);
  }
  const inner = isObject(body) ? body["instance"] : undefined;
  if (!isObject(inner)) throw new InputError("body", 'expected {"instance": {…}}');
  return checked(inner, app);
}

/** The same in XML: `<instance>…</instance>`. @throws InputError with the place */
export function instanceFromXml(root: XmlElement, app: string): InstanceInfo {
  if (root.name !== "instance")
    throw new InputError(`${root.line}:${root.column}`, `expected <instance>, but got <${root.name}>`);
  return checked(toldOf(root) as ToldObject, app);
}

/** An element in the JSON form's spelling: attributes `class` → "@class", `enabled` → "@enabled", text beside attributes → "$". */
function toldOf(element: XmlElement): Told {
  const told: Record<string, Told> = Object.create(null) as Record<string, Told>;
  for (const [name, value] of element.attributes) told[`@${name}`] = value;
  if (element.children.length === 0) {
    const text = element.text.trim();
    if (element.attributes.size === 0 && !XML_PORTS.has(element.name)) return text;
    if (text !== "") told["$"] = text;
    return told;
  }
  for (const child of element.children) told[child.name] = toldOf(child);
  return told;
}

export function isObject(value: unknown): value is ToldObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function checked(told: ToldObject, app: string): InstanceInfo {
  const text = (key: string): string => {
    const value = told[key];
    if (value === undefined || value === null) return "";
    if (typeof value === "string") return value;
    if (typeof value === "number" || typeof value === "boolean") return String(value);
    throw new InputError(`instance.${key}`, `expected a text, but got ${JSON.stringify(value)}`);
  };
  const dataCenter = isObject(told["dataCenterInfo"]) ? told["dataCenterInfo"] : undefined;
  const hostName = text("hostName");
  const amazon = isObject(dataCenter?.["metadata"]) ? dataCenter["metadata"]["instance-id"] : undefined;
  const id = text("instanceId") || (typeof amazon === "string" ? amazon : "") || hostName;
  // The order and the words of ApplicationResource.addInstance.
  if (id === "") throw new InputError("", "Missing instanceId");
  if (hostName === "") throw new InputError("", "Missing hostname");
  const ipAddr = text("ipAddr");
  if (ipAddr === "") throw new InputError("", "Missing ip address");
  const named = text("app");
  if (named === "") throw new InputError("", "Missing appName");
  if (named.toUpperCase() !== app.toUpperCase())
    throw new InputError("", `Mismatched appName, expecting ${app} but was ${named}`);
  if (dataCenter === undefined) throw new InputError("", "Missing dataCenterInfo");
  if (typeof dataCenter["name"] !== "string" || dataCenter["name"] === "")
    throw new InputError("", "Missing dataCenterInfo Name");
  for (const [field, value] of [
    ["instanceId", id],
    ["hostName", hostName],
    ["ipAddr", ipAddr],
    ["app", named],
  ] as const)
    if (/[\u0000-\u001f\u007f]/.test(value) || value.length > 253)
      throw new InputError(`instance.${field}`, "expected at most 253 characters without control characters");
  const status = statusOf(text("status") || "UP", "instance.status");
  const plain = portOf(told["port"], "instance.port");
  const secured = portOf(told["securePort"], "instance.securePort");
  const secure = !plain.on && secured.on;
  const lease = isObject(told["leaseInfo"]) ? Number(told["leaseInfo"]["durationInSecs"] ?? 0) : 0;
  return {
    app: named.toUpperCase(),
    id,
    hostName,
    ipAddr,
    port: secure ? secured.port : plain.on ? plain.port : 0,
    secure,
    status,
    metadata: metadataOf(told["metadata"]),
    vip: text("vipAddress"),
    secureVip: text("secureVipAddress"),
    leaseMs: Number.isFinite(lease) && lease > 0 ? Math.min(lease, MOST_LEASE_S) * 1000 : LEASE_MS,
    lastDirtyMs: Number(text("lastDirtyTimestamp")) || 0,
    told,
  };
}

/** @throws InputError at `where` */
export function statusOf(text: string, where: string): EurekaStatus {
  const status = STATUSES.find((each) => each === text.toUpperCase());
  if (status === undefined)
    throw new InputError(where, `expected ${STATUSES.join(", ")}, but got ${JSON.stringify(text)}`);
  return status;
}

/** `{"$": 8080, "@enabled": "true"}`, or a bare number, which is on. */
function portOf(value: Told | undefined, where: string): { readonly port: number; readonly on: boolean } {
  if (value === undefined || value === null) return { port: 0, on: false };
  const told = isObject(value) ? value : { $: value, "@enabled": "true" };
  if (told["$"] === undefined) return { port: 0, on: false };
  const port = Number(told["$"]);
  const on = String(told["@enabled"] ?? "true").toLowerCase() === "true";
  // Clients that have none send -1 or 0, switched off or on.
  if (!Number.isInteger(port) || port > 65_535)
    throw new InputError(where, `expected a port from 0 to 65535, but got ${JSON.stringify(told["$"])}`);
  return port > 0 ? { port, on } : { port: 0, on: false };
}

/** Pairs of texts; what is neither text, number nor boolean is left out, as is Java's "@class" of an empty map. */
function metadataOf(value: Told | undefined): Readonly<Record<string, string>> {
  const metadata: Record<string, string> = Object.create(null) as Record<string, string>;
  if (!isObject(value)) return metadata;
  for (const [key, each] of Object.entries(value)) {
    if (key === "@class" || each === null || typeof each === "object") continue;
    metadata[key] = String(each);
  }
  return metadata;
}
