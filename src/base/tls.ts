// How a client takes part in TLS: certificates read once, and what is the same under the same name.
import { createSecureContext, type SecureContext } from "node:tls";

export type { SecureContext };

/** How a client takes part in TLS. */
export interface TlsClient {
  /** True = any certificate is taken. */
  readonly skipVerify?: boolean;
  /** The name sent (SNI) and compared with the certificate; the host connected to unless told. */
  readonly serverName?: string;
  /** Certificates (PEM) of the authorities that are believed; Node's own list unless told. */
  readonly ca?: string;
  /** The client's own certificate (PEM), with the key that belongs to it. */
  readonly cert?: string;
  readonly key?: string;
  /** Protocols offered (ALPN): "h2". */
  readonly alpn?: readonly string[];
}

/** Short names for PEM texts, which may be hundreds of kilobytes: a map finds the same text again without looking at all of it. */
const pemNames = new Map<string, string>();
/** Contexts by the names of what they hold: a system's list of authorities takes milliseconds to read. */
const contexts = new Map<string, SecureContext>();
const PEMS_KEPT = 64;
let pemsNamed = 0;

function pemName(text: string | undefined): string {
  if (text === undefined) return "";
  let name = pemNames.get(text);
  if (name === undefined) {
    if (pemNames.size >= PEMS_KEPT) {
      pemNames.clear();
      contexts.clear();
    }
    // Never used twice: what was made under an old name may still be around.
    name = String(++pemsNamed);
    pemNames.set(text, name);
  }
  return name;
}

/** The same text for the same way to take part in TLS, and only for that. */
export function tlsName(tls: TlsClient): string {
  const { skipVerify, serverName, alpn } = tls;
  return JSON.stringify([skipVerify === true, serverName, alpn, contextName(tls)]);
}

function contextName({ ca, cert, key }: TlsClient): string {
  return [ca, cert, key].map(pemName).join();
}

/** The authorities and the certificate of a client, read once; undefined where it brings none. @throws node:tls's errors for what is no PEM */
export function secureContext(tls: TlsClient): SecureContext | undefined {
  const { ca, cert, key } = tls;
  if (ca === undefined && cert === undefined && key === undefined) return undefined;
  const name = contextName(tls);
  let context = contexts.get(name);
  if (context === undefined) {
    context = createSecureContext({
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
    });
    contexts.set(name, context);
  }
  return context;
}

/** The same in the words of node:tls. @throws as `secureContext` */
export function tlsOptions(tls: TlsClient): {
  rejectUnauthorized: boolean;
  servername?: string;
  secureContext?: SecureContext;
  ALPNProtocols?: string[];
} {
  const context = secureContext(tls);
  return {
    rejectUnauthorized: tls.skipVerify !== true,
    // A server name must not be an IP address [RFC6066-3].
    ...(tls.serverName === undefined ? {} : { servername: tls.serverName }),
    ...(context === undefined ? {} : { secureContext: context }),
    ...(tls.alpn === undefined ? {} : { ALPNProtocols: [...tls.alpn] }),
  };
}
