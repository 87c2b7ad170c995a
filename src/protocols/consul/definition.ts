// Definitions of services and checks in the bodies of requests: read as wire/consul-definition reads them, refused in the words of Go's decoder.
import { InputError, messageOf, TrilithError } from "../../base/error.ts";
import { type DecodeOptions, type UnknownField, unknownFieldText } from "../../wire/consul-definition/reader.ts";
import type { Call } from "./call.ts";
import { Refusal } from "./errors.ts";
import { decodeJson } from "./json.ts";

/** Everything registered over HTTP belongs to this name. */
export const FROM = "api";

/** The body's definition. @throws Refusal 400 with the decoder's words, unknown fields included */
export async function readDefinition<T extends { readonly unknown: readonly UnknownField[] }>(
  call: Call,
  decode: (raw: unknown, options: DecodeOptions) => T,
): Promise<T> {
  const bytes = await call.body();
  try {
    const raw = decodeJson(bytes);
    // Go leaves everything at its zero value for `null`.
    const decoded = decode(raw === null ? {} : raw, { spelling: "api" });
    const [unknown] = decoded.unknown;
    if (unknown !== undefined) throw new TrilithError("invalid", unknownFieldText(unknown));
    return decoded;
  } catch (error) {
    if (error instanceof InputError || (error instanceof TrilithError && error.code === "invalid"))
      throw new Refusal(400, `Request decode failed: ${messageOf(error)}`);
    throw error;
  }
}
