// Which ports are to be listened at in which network namespace: one listener for all containers that share one, and who loses where they disagree.
import { type Container, describe } from "../inspect.ts";
import { type ConnectLabels, type ConnectPort, portText } from "./labels.ts";

/** A container that asks for something, and where it lives. */
export interface Located {
  readonly container: Container;
  /** "net:[4026532534]" */
  readonly namespace: string;
  readonly labels: ConnectLabels;
}

/** A port of a namespace's loopback that is to be a service. */
export interface Wanted extends ConnectPort {
  /** The same for the same port of the same namespace. */
  readonly key: string;
  readonly namespace: string;
  /** The containers that ask for it, the one that was first there first; all of them want the same service. */
  readonly holders: readonly [Container, ...Container[]];
}

/** All wanted ports by key, and by container ID what cannot be had because another one shares its network and wants otherwise. */
export function wantedPorts(located: readonly Located[]): {
  readonly wanted: ReadonlyMap<string, Wanted>;
  readonly clashes: ReadonlyMap<string, readonly string[]>;
} {
  const wanted = new Map<string, Wanted>();
  const clashes = new Map<string, string[]>();
  for (const { container, namespace, labels } of located)
    for (const port of labels.ports) {
      const key = `${namespace} ${portText(port)}`;
      const other = wanted.get(key);
      if (other === undefined) wanted.set(key, { ...port, key, namespace, holders: [container] });
      else if (other.service === port.service) wanted.set(key, { ...other, holders: [...other.holders, container] });
      else {
        const text = `localhost:${portText(port)} is not ${port.service}: container ${describe(other.holders[0])} has the same network, and its label says ${other.service}`;
        clashes.set(container.id, [...(clashes.get(container.id) ?? []), text]);
      }
    }
  return { wanted, clashes };
}
