// What this dialect answers to every error code, and how an error looks: {"error": {"code", "message"}}.

import { type Code, codeOf, messageOf, TrilithError } from "../../base/error.ts";
import { STATUS_OF } from "../../base/requests.ts";

/** Status and body of an error. */
export function errorReply(error: unknown): {
  readonly status: number;
  readonly body: { readonly error: { readonly code: Code; readonly message: string } };
} {
  const code = codeOf(error);
  const status = error instanceof MethodError ? 405 : STATUS_OF[code];
  return { status, body: { error: { code, message: messageOf(error) } } };
}

/** A method that the path does not know. */
export class MethodError extends TrilithError {
  readonly allow: string;
  constructor(method: string, path: string, allow: string) {
    super("invalid", `${method} is not for ${path}: use ${allow}`);
    this.allow = allow;
  }
}
