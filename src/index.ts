// The public door of the package: an agent inside your program, or find, list and advertise through the agent of this host, or on the tailnet without any.
export { type Code, InputError, TrilithError } from "./base/error.ts";
export { callbackLog, type Log, type LogLevel, silentLog } from "./base/log.ts";
export { type ConnectServiceOptions, connect } from "./connect.ts";
export type { Agent } from "./contracts/agent.ts";
export type { ConnectPolicy, ProxyStatus } from "./contracts/connect.ts";
export type { Directory, View, Written } from "./contracts/directory.ts";
export type { Self, SourceState } from "./contracts/ground.ts";
export type { Lookup } from "./contracts/lookup.ts";
export type { Settings } from "./contracts/settings.ts";
export type { Source, SourceList } from "./contracts/source.ts";
export { advertise, find, list } from "./library.ts";
export type { Check, CheckSpec, Outcome, Status } from "./model/check.ts";
export type { Address, Instance, Registration, Resident } from "./model/instance.ts";
export type { Labels, Node } from "./model/node.ts";
export type { Answer, Endpoint, Query } from "./model/query.ts";
export type { Reason } from "./model/reason.ts";
export type { ClientOptions } from "./protocols/api/client.ts";
export type {
  DoctorJson,
  EndpointJson,
  FindJson,
  InstanceJson,
  ListedJson,
  OverrideJson,
  WhyJson,
} from "./protocols/api/shapes.ts";
export type { Advertised, AdvertiseOptions } from "./protocols/process/advertise.ts";
export { type Proxies, type ProxyServiceOptions, proxy } from "./proxy.ts";
export { type RenderEvent, type RenderOptions, type Renders, render } from "./render.ts";
export { createTrilith, settingsFaults, type Trilith, type TrilithOptions } from "./trilith.ts";
