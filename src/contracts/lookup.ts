// Stone 3, lookup: find.
import type { Node } from "../model/node.ts";
import type { Answer, Query, Verdict } from "../model/query.ts";

/** Finds endpoints: query → view → filter → picker → guard → answer. */
export interface Lookup {
  /** Like `resolveNow`, after asking who has to be asked (another datacenter, an upstream). Waits at most until the signal. */
  resolve(query: Query, signal?: AbortSignal): Promise<Answer>;
  /** From what is known here; never blocks. */
  resolveNow(query: Query): Answer;
  /**
   * A node of another datacenter, asked for there; undefined = there is none, or nobody knows the datacenter. Absent = there are no others.
   * @throws TrilithError `unavailable` where nobody answers
   */
  nodeElsewhere?(datacenter: string, node: string, signal?: AbortSignal): Promise<Node | undefined>;
  /** The answer now and whenever its endpoints change; ends when aborted. */
  follow(query: Query, signal: AbortSignal): AsyncIterable<Answer>;
  /** Why each instance of the service is or is not in the answer. */
  explain(query: Query): readonly Verdict[];
  /** Ends the guard's hold on a service by hand; false if nothing was held. */
  release(service: string): boolean;
  /** What is held now. */
  held(): readonly {
    readonly service: string;
    readonly sinceMs: number;
    readonly text: string;
    readonly instances: number;
  }[];
  /** A failing probe or a refused connection told from outside: confirms the loss of a held endpoint. */
  confirmLost(service: string, address: string, port: number): void;
}
