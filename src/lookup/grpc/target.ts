// What a gRPC target says: minidisc://web?env=prod names a service and the labels that its instances have to carry.
import { InputError } from "../../base/error.ts";
import type { Sought } from "./names.ts";

/** A gRPC target as @grpc/grpc-js takes it apart, which knows no queries. */
export interface GrpcTarget {
  readonly scheme?: string;
  readonly authority?: string;
  readonly path: string;
}

/**
 * Reads `scheme://name?label=value&…`; `scheme:///name` and `scheme:name` say the same. Names and labels may be percent-encoded.
 * @throws InputError with what would be right
 */
export function readTarget({ scheme = "", authority, path }: GrpcTarget): Sought {
  // A slash anywhere, in a label's value for one, ends what grpc-js takes for the authority.
  const whole = authority === undefined ? path.replace(/^\/\//, "") : `${authority}/${path}`;
  const shown = `"${scheme}://${whole}"`;
  const at = whole.indexOf("?");
  const name = (at < 0 ? whole : whole.slice(0, at)).replace(/^\/+|\/$/g, "");
  const fault = (text: string): InputError => new InputError(shown, `${text}; expected ${scheme}://NAME?label=value`);
  let service: string;
  try {
    service = decodeURIComponent(name);
  } catch (error) {
    throw new InputError(shown, `"${name}" is not percent-encoded UTF-8`, error);
  }
  if (service === "") throw fault("the service's name is missing");
  if (name.includes("/")) throw fault(`"${name}" has a path`);
  const labels: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const [key, value] of new URLSearchParams(at < 0 ? "" : whole.slice(at + 1))) {
    if (key === "") throw fault("a label without a name");
    if (key in labels && labels[key] !== value) throw fault(`the label "${key}" cannot have two values`);
    labels[key] = value;
  }
  return { service, labels };
}
