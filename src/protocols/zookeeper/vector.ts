// Weights of a server set's members as Finagle keeps them beside the members, in znodes "vector_…". Pure.
import { InputError } from "../../base/error.ts";
import { jsonOf, type Member, type MemberEndpoint } from "./member.ts";

/** One line of a vector: which endpoints, and by how much their weight is multiplied. */
export interface Descriptor {
  readonly select:
    | { readonly by: "inet"; readonly host: string; readonly port: number }
    /** The whole name of the member's znode, or its number. */
    | { readonly by: "member"; readonly name: string }
    | { readonly by: "shard"; readonly shard: number };
  readonly weight: number;
}

/** An endpoint of a member, as vectors select it. */
export interface Weighed {
  /** Of the znode. */
  readonly name: string;
  readonly member: Pick<Member, "shard">;
  readonly at: MemberEndpoint;
}

/** True for the names of vectors beside a set's members. */
export const isVectorName = (name: string): boolean => name.startsWith("vector_");
const LONGEST = 1 << 20;

/**
 * `{"vector": [{"select": "inet=10.0.0.1:80" | "member=member_0000000001" | "shard=3", "weight": 1.5, "priority": 1}]}`. Lines that select in
 * another way are for somebody else; Finagle reads priorities and does nothing with them, so neither is done here.
 * @throws InputError that says what is wrong with it
 */
export function decodeVector(bytes: Uint8Array): readonly Descriptor[] {
  const lines = (jsonOf(bytes, "a vector", LONGEST) as { vector?: unknown } | null)?.vector;
  if (!Array.isArray(lines)) throw new InputError("", 'expected {"vector": [{"select": "shard=3", "weight": 1.5}]}');
  return lines.flatMap((line: unknown) => {
    const { select, weight = 1 } = (typeof line === "object" && line !== null ? line : {}) as Record<string, unknown>;
    const selector = typeof select === "string" ? selectorOf(select) : undefined;
    if (selector === undefined) return [];
    if (typeof weight !== "number" || !(weight >= 0))
      throw new InputError("weight", `${JSON.stringify(weight)}: expected a number from 0 on`);
    return [{ select: selector, weight }];
  });
}

function selectorOf(text: string): Descriptor["select"] | undefined {
  const [, by = "", arg = ""] = /^([^=]*)=(.*)$/s.exec(text) ?? [];
  if (by === "member" && arg !== "") return { by, name: arg };
  if (by === "shard" && /^-?\d{1,9}$/.test(arg)) return { by, shard: Number(arg) };
  if (by !== "inet") return undefined;
  const [, bracketed, plain, digits = ""] = /^(?:\[([^\]]+)\]|([^\s]+)):(\d{1,5})$/.exec(arg) ?? [];
  const host = bracketed ?? plain;
  return host === undefined ? undefined : { by, host: host.toLowerCase(), port: Number(digits) };
}

/** The product of the weights of all lines that select an endpoint; 1 where none does. */
export function weightOf(vectors: readonly (readonly Descriptor[])[], { name, member, at }: Weighed): number {
  const number = name.slice(name.indexOf("_") + 1);
  let product = 1;
  for (const { select, weight } of vectors.flat()) {
    const selects =
      select.by === "inet"
        ? select.port === at.port && select.host === at.host.toLowerCase()
        : select.by === "shard"
          ? select.shard === member.shard
          : select.name === name || select.name === number;
    // Out is out, also beside weights that are beyond all numbers.
    if (selects && weight === 0) return 0;
    if (selects) product *= weight;
  }
  return product;
}
