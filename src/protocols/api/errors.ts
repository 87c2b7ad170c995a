// What this dialect answers to every error code, and how an error looks: {"error": {"code", "message"}}.
import { type Code, codeOf, messageOf, TrilithError } from "../../base/error.ts";

/** HTTP status by code. */
export const STATUS: Record<Code, number> = {
  invalid: 400,
  "not-found": 404,
  conflict: 409,
  "too-large": 413,
  "not-allowed": 403,
  unsupported: 501,
  unavailable: 503,
  timeout: 504,
  stopped: 503,
  locked: 503,
  "newer-data": 500,
  damaged: 500,
  "disk-full": 507,
  "read-only": 503,
  "address-in-use": 500,
  internal: 500,
};

/** Status and body of an error. */
export function errorReply(error: unknown): {
  readonly status: number;
  readonly body: { readonly error: { readonly code: Code; readonly message: string } };
} {
  const code = codeOf(error);
  const status = error instanceof MethodError ? 405 : STATUS[code];
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
