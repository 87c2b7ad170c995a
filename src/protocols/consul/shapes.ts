// The fields of Consul's records that filter expressions may name.
import type { Shape } from "./filter.ts";

const text = (...names: string[]): Record<string, Shape> => Object.fromEntries(names.map((name) => [name, "text"]));

const weights: Shape = { record: { Passing: "number", Warning: "number" } };
const taggedAddresses: Shape = { map: { record: { Address: "text", Port: "number" } } };
const meshGateway: Shape = { record: text("Mode") };
const path: Shape = {
  record: { ...text("Path", "Protocol"), ListenerPort: "number", LocalPathPort: "number", ParsedFromCheck: "flag" },
};
const upstream: Shape = {
  record: {
    ...text("DestinationType", "DestinationNamespace", "DestinationPartition", "DestinationPeer", "DestinationName"),
    ...text("Datacenter", "LocalBindAddress", "LocalBindSocketPath", "LocalBindSocketMode"),
    LocalBindPort: "number",
    MeshGateway: meshGateway,
  },
};
const proxy: Shape = {
  record: {
    ...text("DestinationServiceName", "DestinationServiceID", "LocalServiceAddress", "LocalServiceSocketPath", "Mode"),
    LocalServicePort: "number",
    MeshGateway: meshGateway,
    Expose: { record: { Checks: "flag", Paths: { list: path } } },
    TransparentProxy: { record: { OutboundListenerPort: "number", DialedDirectly: "flag" } },
    Upstreams: { list: upstream },
    EnvoyExtensions: { list: { record: { ...text("Name", "ConsulVersion", "EnvoyVersion"), Required: "flag" } } },
    AccessLogs: {
      record: { ...text("Type", "Path", "JSONFormat", "TextFormat"), Enabled: "flag", DisableListenerLogs: "flag" },
    },
  },
};
const connect: Shape = { record: { Native: "flag" } };

export const nodeShape: Shape = {
  record: {
    ...text("ID", "Node", "Address", "Datacenter", "Partition", "PeerName"),
    TaggedAddresses: "labels",
    Meta: "labels",
  },
};

export const nodeServiceShape: Shape = {
  record: {
    ...text("Kind", "ID", "Service", "Address", "SocketPath", "PeerName"),
    Tags: "texts",
    TaggedAddresses: taggedAddresses,
    Meta: "labels",
    Port: "number",
    Weights: weights,
    EnableTagOverride: "flag",
    Proxy: proxy,
    Connect: connect,
  },
};

export const agentServiceShape: Shape = {
  record: {
    ...(nodeServiceShape as { record: Record<string, Shape> }).record,
    Datacenter: "text",
    ContentHash: "text",
  },
};

export const checkShape: Shape = {
  record: {
    ...text("Node", "CheckID", "Name", "Status", "Notes", "Output", "ServiceID", "ServiceName", "Type"),
    ...text("Interval", "Timeout", "PeerName"),
    ServiceTags: "texts",
    ExposedPort: "number",
    // It is there, but nothing can be asked of it.
    LastCheckStartTime: { record: {} },
  },
};

export const catalogServiceShape: Shape = {
  record: {
    ...text("ID", "Node", "Address", "Datacenter", "ServiceKind", "ServiceID", "ServiceName", "ServiceAddress"),
    ...text("ServiceSocketPath", "PeerName"),
    TaggedAddresses: "labels",
    NodeMeta: "labels",
    ServiceTags: "texts",
    ServiceTaggedAddresses: taggedAddresses,
    ServiceWeights: weights,
    ServiceMeta: "labels",
    ServicePort: "number",
    ServiceEnableTagOverride: "flag",
    ServiceProxy: proxy,
    ServiceConnect: connect,
  },
};

export const residentShape: Shape = {
  record: { Node: nodeShape, Service: nodeServiceShape, Checks: { list: checkShape } },
};

export const memberShape: Shape = {
  record: { ...text("Name", "Addr"), Port: "number", Tags: "labels", Status: "number" },
};
