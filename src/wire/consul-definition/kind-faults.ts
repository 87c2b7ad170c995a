// What Consul's validation has against a service because of its kind (proxies, gateways, natively connected services) and its locality; pure.

/** What of a service is looked at. `proxy`, `connect` and `locality` as they were told: names in any case, with or without underscores. */
export interface KindFacts {
  readonly kind: string;
  readonly port: number;
  readonly socketPath: string;
  readonly proxy: unknown;
  readonly connect: unknown;
  readonly locality: unknown;
}

const GATEWAYS: ReadonlySet<string> = new Set([
  "mesh-gateway",
  "terminating-gateway",
  "ingress-gateway",
  "api-gateway",
]);
/** Gateways that listen where their configuration says, not at a port of their own. */
const PORTLESS: ReadonlySet<string> = new Set(["ingress-gateway", "api-gateway"]);

function of(object: unknown, name: string): unknown {
  if (typeof object !== "object" || object === null || Array.isArray(object)) return undefined;
  const wanted = name.toLowerCase();
  for (const [key, value] of Object.entries(object))
    if (key.replaceAll("_", "").toLowerCase() === wanted && value !== null) return value;
  return undefined;
}

const text = (value: unknown): string => (typeof value === "string" ? value : "");

/** Everything that is wrong, in Consul's words and order; empty = nothing. */
export function kindFaults({ kind, port, socketPath, proxy, connect, locality }: KindFacts): readonly string[] {
  const faults: string[] = [];
  const nowhere = port === 0 && socketPath === "";
  const native = of(connect, "Native") === true;
  if (kind === "connect-proxy") {
    if (nowhere) faults.push("Port or SocketPath must be set for a connect-proxy");
    const destination = text(of(proxy, "DestinationServiceName"));
    if (destination.trim() === "")
      faults.push("Proxy.DestinationServiceName must be non-empty for Connect proxy services");
    if (destination === "*")
      faults.push("Proxy.DestinationServiceName must not be a wildcard for Connect proxy services");
    if (native) faults.push("A Proxy cannot also be Connect Native, only typical services");
  }
  if (GATEWAYS.has(kind)) {
    if (port === 0 && !PORTLESS.has(kind)) faults.push(`Port must be non-zero for a ${kind}`);
    if (of(connect, "SidecarService") !== undefined) faults.push(`A ${kind} cannot have a sidecar service defined`);
    for (const name of [
      "DestinationServiceName",
      "DestinationServiceID",
      "LocalServiceAddress",
      "LocalServicePort",
      "LocalServiceSocketPath",
      "Upstreams",
    ]) {
      const value = of(proxy, name);
      const given = Array.isArray(value) ? value.length > 0 : value !== undefined && value !== "" && value !== 0;
      if (given) faults.push(`The Proxy.${name} configuration is invalid for a ${kind}`);
    }
  }
  if (native && nowhere) faults.push("Port or SocketPath must be set for a Connect native service.");
  if (text(of(locality, "Zone")) !== "" && text(of(locality, "Region")) === "")
    faults.push("zone cannot be set without region");
  return faults;
}

/** Several errors in one text, as Go's go-multierror writes them; undefined = none. */
export function multiError(faults: readonly string[]): string | undefined {
  if (faults.length === 0) return undefined;
  const head = faults.length === 1 ? "1 error occurred:" : `${faults.length} errors occurred:`;
  return `${head}\n${faults.map((fault) => `\t* ${fault}\n`).join("")}\n`;
}
