// What goes wrong, as HTTP answers: a status for every code, and refusals that know their own status and words.
import { type Code, TrilithError } from "../../base/error.ts";

/** The status of errors that other parts throw. */
export const STATUS: Readonly<Record<Code, number>> = {
  invalid: 400,
  "not-found": 404,
  conflict: 409,
  "too-large": 413,
  "not-allowed": 403,
  unsupported: 501,
  unavailable: 503,
  timeout: 503,
  stopped: 503,
  locked: 500,
  "newer-data": 500,
  damaged: 500,
  "disk-full": 507,
  "read-only": 500,
  "address-in-use": 500,
  internal: 500,
};

const CODE: Readonly<Record<number, Code>> = {
  400: "invalid",
  403: "not-allowed",
  404: "not-found",
  408: "timeout",
  413: "too-large",
  501: "unsupported",
};

/** An answer other than the one asked for, with Consul's status and words. */
export class Refusal extends TrilithError {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  constructor(status: number, text: string, headers: Readonly<Record<string, string>> = {}) {
    super(CODE[status] ?? "internal", text);
    this.name = "Refusal";
    this.status = status;
    this.headers = headers;
  }
}

/** 404 for a service that this agent does not have. */
export function unknownService(id: string): Refusal {
  return new Refusal(
    404,
    `Unknown service ID ${JSON.stringify(id)}. Ensure that the service ID is passed, not the service name.`,
  );
}

/** 404 for a check that this agent does not have. */
export function unknownCheck(id: string): Refusal {
  return new Refusal(
    404,
    `Unknown check ID ${JSON.stringify(id)}. Ensure that the check ID is passed, not the check name.`,
  );
}
