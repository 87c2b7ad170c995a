// Failures of the network, files and certificates in the words of Go's standard library, which monitoring rules written for Consul look for.
import { messageOf } from "../../base/error.ts";

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
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
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
      return `tls: failed to verify certificate: x509: certificate is not valid for ${(at as { host?: unknown }).host ?? hostPort}`;
    const stream = STREAM[code];
    if (stream !== undefined) return `read tcp ${hostPort}: ${stream}`;
  }
  return messageOf(last);
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
