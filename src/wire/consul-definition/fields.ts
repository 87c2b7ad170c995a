// The fields that Consul's definitions of services and checks have: their names in the API and in files, and their types.

export type FieldType =
  | "string"
  | "int"
  | "bool"
  | "strings"
  | "duration"
  | "map" // text → text
  | "headers" // text → texts
  | "object"
  | "objects"
  | "any";

export interface Field {
  /** Consul's CamelCase name. */
  readonly name: string;
  /** In files. */
  readonly snake: string;
  readonly type: FieldType;
  /** Other names the API takes. */
  readonly api?: readonly string[];
  /** Other names files take (without underscores, lower case). */
  readonly file?: readonly string[];
}

const field = (
  name: string,
  snake: string,
  type: FieldType,
  api: readonly string[] = [],
  file: readonly string[] = [],
): Field => ({ name, snake, type, api, file });

export const SERVICE_FIELDS: readonly Field[] = [
  field("ID", "id", "string"),
  field("Name", "name", "string"),
  field("Tags", "tags", "strings"),
  field("Address", "address", "string"),
  field("TaggedAddresses", "tagged_addresses", "object", ["tagged_addresses"]),
  field("Meta", "meta", "map"),
  field("Port", "port", "int"),
  field("SocketPath", "socket_path", "string", ["socket_path"]),
  field("EnableTagOverride", "enable_tag_override", "bool", ["enable_tag_override"]),
  field("Weights", "weights", "object"),
  field("Check", "check", "object"),
  field("Checks", "checks", "objects"),
  field("Kind", "kind", "string"),
  field("Token", "token", "string"),
  field("Proxy", "proxy", "any"),
  field("Connect", "connect", "any"),
  field("Locality", "locality", "any"),
];

export const WEIGHT_FIELDS: readonly Field[] = [field("Passing", "passing", "int"), field("Warning", "warning", "int")];
export const TAGGED_FIELDS: readonly Field[] = [field("Address", "address", "string"), field("Port", "port", "int")];

const CHECK_FIELDS: readonly Field[] = [
  field("Name", "name", "string"),
  field("Notes", "notes", "string"),
  field("Status", "status", "string"),
  field("ScriptArgs", "args", "strings", ["Args", "script_args"], ["scriptargs"]),
  field("HTTP", "http", "string"),
  field("H2PING", "h2ping", "string"),
  field("H2PingUseTLS", "h2ping_use_tls", "bool", ["h2ping_use_tls"]),
  field("Header", "header", "headers"),
  field("Method", "method", "string"),
  field("Body", "body", "string"),
  field("DisableRedirects", "disable_redirects", "bool", ["disable_redirects"]),
  field("TCP", "tcp", "string"),
  field("TCPUseTLS", "tcp_use_tls", "bool", ["tcp_use_tls"]),
  field("UDP", "udp", "string"),
  field("Interval", "interval", "duration"),
  field("AliasNode", "alias_node", "string", ["alias_node"]),
  field("AliasService", "alias_service", "string", ["alias_service"]),
  field("DockerContainerID", "docker_container_id", "string", ["docker_container_id"]),
  field("Shell", "shell", "string"),
  field("GRPC", "grpc", "string"),
  field("GRPCUseTLS", "grpc_use_tls", "bool", ["grpc_use_tls"]),
  field("OSService", "os_service", "string", ["os_service"]),
  field("TLSServerName", "tls_server_name", "string", ["tls_server_name"]),
  field("TLSSkipVerify", "tls_skip_verify", "bool", ["tls_skip_verify"]),
  field("Timeout", "timeout", "duration"),
  field("TTL", "ttl", "duration"),
  field("SuccessBeforePassing", "success_before_passing", "int"),
  field("FailuresBeforeWarning", "failures_before_warning", "int"),
  field("FailuresBeforeCritical", "failures_before_critical", "int"),
  field("ProxyHTTP", "proxy_http", "string"),
  field("ProxyGRPC", "proxy_grpc", "string"),
  field("DeregisterCriticalServiceAfter", "deregister_critical_service_after", "duration", [
    "deregister_critical_service_after",
  ]),
  field("OutputMaxSize", "output_max_size", "int"),
];
/** A check within a service: its identity is CheckID there [FACTS 3]. */
export const NESTED_CHECK_FIELDS: readonly Field[] = [
  field("CheckID", "id", "string", [], ["checkid"]),
  field("ServiceID", "service_id", "string", ["service_id"]),
  field("Token", "token", "string"),
  ...CHECK_FIELDS,
];
/** A check of its own: its identity is ID there. */
export const OWN_CHECK_FIELDS: readonly Field[] = [
  field("ID", "id", "string", [], ["checkid"]),
  field("ServiceID", "service_id", "string", ["service_id"]),
  field("Token", "token", "string"),
  ...CHECK_FIELDS,
];

/** Fields of checks that are durations, by CamelCase name. */
export const DURATIONS: ReadonlySet<string> = new Set(
  CHECK_FIELDS.filter((one) => one.type === "duration").map((one) => one.name),
);
