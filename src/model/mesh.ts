// Consul's service mesh as far as registrations tell of it: proxies and the service they stand before, services that are connected natively.
import type { Instance } from "./instance.ts";

/** A field of what one dialect keeps, however it is spelled: in camel case or with underscores. */
function fieldOf(object: unknown, name: string): unknown {
  if (typeof object !== "object" || object === null) return undefined;
  return Object.entries(object).find(([key]) => key.replaceAll("_", "").toLowerCase() === name)?.[1];
}

/** Whether an instance speaks the mesh's language itself. */
export function isNative({ foreign }: Pick<Instance, "foreign">): boolean {
  return fieldOf(foreign?.["Connect"], "native") === true;
}

/** For whom an instance is a proxy; undefined where it is none. */
export function proxyOf({
  foreign,
}: Pick<Instance, "foreign">): { readonly destination: string; readonly transparent: boolean } | undefined {
  if (foreign?.["Kind"] !== "connect-proxy") return undefined;
  const proxy = foreign["Proxy"];
  return {
    destination: String(fieldOf(proxy, "destinationservicename") ?? ""),
    transparent: fieldOf(proxy, "mode") === "transparent",
  };
}

/** The service, in lower case, under whose name the mesh knows an instance: the one it is a proxy for, or its own; undefined outside the mesh. */
export function meshNameOf(instance: Pick<Instance, "name" | "foreign">): string | undefined {
  if (instance.foreign === undefined) return undefined;
  const proxy = proxyOf(instance);
  if (proxy !== undefined) return proxy.destination.toLowerCase();
  return isNative(instance) ? instance.name.toLowerCase() : undefined;
}
