// Eureka's answers: applications and instances as JSON and as XML.
import { escapeXml } from "../../wire/xml.ts";
import { isObject, type Told, type ToldObject } from "./instance.ts";

/** One application with its instances in the JSON form. */
export interface Application {
  readonly name: string;
  readonly instances: readonly ToldObject[];
}

/** All applications, or those that changed. */
export interface Applications {
  /** "1" for all; grows with each delta. */
  readonly version: string;
  /** How many instances have which status: "DOWN_1_UP_2_". */
  readonly hash: string;
  readonly applications: readonly Application[];
}

/** A body and what it is. */
export interface Encoded {
  readonly type: "application/json" | "application/xml";
  readonly body: string;
}

const json = (body: unknown): Encoded => ({ type: "application/json", body: JSON.stringify(body) });
const xml = (body: string): Encoded => ({ type: "application/xml", body });

/** All applications, as JSON or XML. */
export function encodeApplications({ version, hash, applications }: Applications, asJson: boolean): Encoded {
  if (asJson)
    return json({
      applications: {
        versions__delta: version,
        apps__hashcode: hash,
        application: applications.map(({ name, instances }) => ({ name, instance: instances })),
      },
    });
  const inner = applications.map(applicationXml).join("");
  return xml(
    `<applications><versions__delta>${version}</versions__delta><apps__hashcode>${escapeXml(hash)}</apps__hashcode>${inner}</applications>`,
  );
}

/** One application with its instances, as JSON or XML. */
export function encodeApplication(application: Application, asJson: boolean): Encoded {
  return asJson
    ? json({ application: { name: application.name, instance: application.instances } })
    : xml(applicationXml(application));
}

/** One instance as it told itself, as JSON or XML. */
export function encodeInstance(instance: ToldObject, asJson: boolean): Encoded {
  return asJson ? json({ instance }) : xml(elementXml("instance", instance));
}

function applicationXml({ name, instances }: Application): string {
  return `<application><name>${escapeXml(name)}</name>${instances.map((each) => elementXml("instance", each)).join("")}</application>`;
}

/** XML names [XML 1.0 §2.3], without those that only namespaces need. Metadata keys that are none cannot stand in XML. */
const NAME = /^[A-Za-z_][\w.-]*$/;

function elementXml(name: string, value: Told): string {
  if (!NAME.test(name) || value === null) return "";
  if (Array.isArray(value)) return value.map((each: Told) => elementXml(name, each)).join("");
  if (!isObject(value)) return `<${name}>${escapeXml(String(value))}</${name}>`;
  let attributes = "";
  let inner = "";
  for (const [key, each] of Object.entries(value)) {
    if (key === "$") inner += escapeXml(String(each));
    else if (key.startsWith("@") && NAME.test(key.slice(1)))
      attributes += ` ${key.slice(1)}="${escapeXml(String(each))}"`;
    else inner += elementXml(key, each);
  }
  return inner === "" ? `<${name}${attributes}/>` : `<${name}${attributes}>${inner}</${name}>`;
}
