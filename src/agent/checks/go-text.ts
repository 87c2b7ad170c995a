// Failures of the network, files and certificates in the words of Go's standard library, which monitoring rules written for Consul look for.
import { messageOf } from "../../base/error.ts";
import { ipFamily, hostPort as joinHostPort } from "../../base/net.ts";

/** Anything thrown, with what caused it, outermost first. */
function* chain(error: unknown): Iterable<{ readonly code: string; readonly error: unknown }> {
  let at: unknown = error;
  for (let depth = 0; at !== null && at !== undefined && depth < 8; depth++) {
    const { code, cause, errors } = at as { code?: unknown; cause?: unknown; errors?: unknown };
    yield { code: typeof code === "string" ? code : "", error: at };
    // Several addresses were tried: the last failure is the one Go tells.
    at = cause ?? (Array.isArray(errors) ? errors.at(-1) : undefined);
  }
}

/** By the errno of a connection attempt. */
const CONNECT: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connect: connection refused",
  EHOSTUNREACH: "connect: no route to host",
  ENETUNREACH: "connect: network is unreachable",
  ETIMEDOUT: "connect: connection timed out",
  EACCES: "connect: permission denied",
  EADDRNOTAVAIL: "connect: cannot assign requested address",
  EINVAL: "connect: invalid argument",
};
/** By the errno of a connection in use. */
const STREAM: Readonly<Record<string, string>> = {
  ECONNRESET: "read: connection reset by peer",
  EPIPE: "write: broken pipe",
};
/** By Node's code for a certificate that was refused. */
const CERTIFICATE: Readonly<Record<string, string>> = {
  DEPTH_ZERO_SELF_SIGNED_CERT: "x509: certificate signed by unknown authority",
  SELF_SIGNED_CERT_IN_CHAIN: "x509: certificate signed by unknown authority",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "x509: certificate signed by unknown authority",
  UNABLE_TO_GET_ISSUER_CERT: "x509: certificate signed by unknown authority",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "x509: certificate signed by unknown authority",
  CERT_HAS_EXPIRED: "x509: certificate has expired or is not yet valid",
  CERT_NOT_YET_VALID: "x509: certificate has expired or is not yet valid",
};

/** `host:port` as a failed attempt tells it: the address that was tried where it is known. */
function triedAddress(error: unknown, fallback: string): string {
  const { address, port } = error as { address?: unknown; port?: unknown };
  if (typeof address !== "string" || typeof port !== "number") return fallback;
  return joinHostPort(address, port);
}

/** By Node's code for an answer to a TLS greeting that is something else. */
const NOT_TLS = /^ERR_SSL_(WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST|UNEXPECTED_MESSAGE)$/;

interface AltNameError {
  readonly host?: unknown;
  readonly cert?: { readonly subjectaltname?: unknown };
}

/** What Go says about a certificate that is somebody else's. */
function wrongName(error: AltNameError, hostPort: string): string {
  const host = typeof error.host === "string" ? error.host : hostPort;
  const names = String(error.cert?.subjectaltname ?? "").split(", ");
  const ofKind = (prefix: string): string[] =>
    names.filter((name) => name.startsWith(prefix)).map((name) => name.slice(prefix.length));
  const isAddress = ipFamily(host) !== 0;
  const valid = ofKind(isAddress ? "IP Address:" : "DNS:");
  if (valid.length > 0) return `certificate is valid for ${valid.join(", ")}, not ${host}`;
  return isAddress
    ? `cannot validate certificate for ${host} because it doesn't contain any IP SANs`
    : `certificate is not valid for any names, but wanted to match ${host}`;
}

/**
 * What Go's net package says about a failed attempt to reach `hostPort`: "dial tcp 127.0.0.1:1: connect: connection refused",
 * "dial tcp: lookup web.example: no such host", "read tcp …: connection reset by peer", "EOF". Anything else keeps its own message.
 */
export function goNetworkError(error: unknown, hostPort: string): string {
  let last: unknown = error;
  for (const { code, error: at } of chain(error)) {
    last = at;
    const { syscall, hostname, errors } = at as { syscall?: unknown; hostname?: unknown; errors?: unknown };
    const connect = CONNECT[code];
    if (connect !== undefined && syscall !== "read" && syscall !== "write" && !Array.isArray(errors))
      return `dial tcp ${triedAddress(at, hostPort)}: ${connect}`;
    if (code === "ENOTFOUND") return `dial tcp: lookup ${String(hostname)}: no such host`;
    if (code === "EAI_AGAIN") return `dial tcp: lookup ${String(hostname)}: server misbehaving`;
    if (code === "UND_ERR_CONNECT_TIMEOUT") return `dial tcp ${hostPort}: i/o timeout`;
    if (code === "UND_ERR_SOCKET" && (at as { cause?: unknown }).cause === undefined) return "EOF";
    const certificate = CERTIFICATE[code];
    if (certificate !== undefined) return `tls: failed to verify certificate: ${certificate}`;
    if (code === "ERR_TLS_CERT_ALTNAME_INVALID")
      return `tls: failed to verify certificate: x509: ${wrongName(at as AltNameError, hostPort)}`;
    if (NOT_TLS.test(code) || (code === "EPROTO" && /wrong version number|packet length too long/.test(messageOf(at))))
      return "tls: first record does not look like a TLS handshake";
    const stream = STREAM[code];
    if (stream !== undefined) return `read tcp ${hostPort}: ${stream}`;
  }
  return messageOf(last);
}

/**
 * What Go says about a datagram that was refused: "read udp 127.0.0.1:43210->127.0.0.1:1: read: connection refused"; about names and
 * routes it says the same as for connections.
 */
export function goDatagramError(error: unknown, hostPort: string): string {
  for (const { code, error: at } of chain(error)) {
    const { localAddress, localPort } = at as { localAddress?: unknown; localPort?: unknown };
    if (code === "ECONNREFUSED")
      return `read udp ${typeof localAddress === "string" ? `${joinHostPort(localAddress, Number(localPort))}->` : ""}${hostPort}: read: connection refused`;
  }
  return goNetworkError(error, hostPort).replace(/^dial tcp/, "dial udp");
}

/** Go's names of the gRPC status codes, by number. */
const GRPC_CODES: readonly string[] = [
  ...["OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists"],
  ...["PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented"],
  ...["Internal", "Unavailable", "DataLoss", "Unauthenticated"],
];

/**
 * What Go's gRPC says about a call that failed: "rpc error: code = NotFound desc = unknown service". A server that could not be reached
 * is told with the network's own words.
 */
export function goGrpcError(code: number, details: string, hostPort: string): string {
  const name = GRPC_CODES[code] ?? `Code(${code})`;
  const told = (text: string): string => `rpc error: code = ${name} desc = ${text}`;
  if (name === "DeadlineExceeded") return told("context deadline exceeded");
  if (name !== "Unavailable") return told(details);
  const dialing = (text: string): string => told(`connection error: desc = "transport: Error while dialing: ${text}"`);
  if (details.startsWith("dial tcp")) return dialing(details);
  const errno = /\b(E[A-Z]{3,})\b(?: (\S+:\d+))?/.exec(details);
  const connect = CONNECT[errno?.[1] ?? ""];
  if (connect !== undefined) return dialing(`dial tcp ${errno?.[2] ?? hostPort}: ${connect}`);
  if (/ENOTFOUND|Name resolution failed/.test(details))
    return dialing(`dial tcp: lookup ${hostPort.replace(/:\d+$/, "")}: no such host`);
  return told(details);
}

/** What Go says when a command cannot be started: "fork/exec /x: no such file or directory", "exec: "x": executable file not found in $PATH". */
export function goExecError(error: unknown, file: string): string {
  const code = (error as { code?: unknown } | null)?.code;
  if (code === "ENOENT")
    return file.includes("/")
      ? `fork/exec ${file}: no such file or directory`
      : `exec: ${JSON.stringify(file)}: executable file not found in $PATH`;
  if (code === "EACCES") return `fork/exec ${file}: permission denied`;
  return `fork/exec ${file}: ${messageOf(error)}`;
}
