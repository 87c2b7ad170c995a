// Reads the server sets that the configuration names: which there are, their members, and what is wrong with some.
import { messageOf, TrilithError } from "../../base/error.ts";
import type { SetRule } from "./config.ts";
import { decodeMember, isMemberName, type Member } from "./member.ts";
import { type Descriptor, decodeVector, isVectorName } from "./vector.ts";
import { inParts, type Znodes } from "./znodes.ts";

/** One set at one moment. */
export interface SetPicture {
  readonly path: string;
  readonly rule: SetRule;
  /** What the "*" of the rule's path stand for. */
  readonly stars: readonly string[];
  /** False where the znode is not there (yet). */
  readonly there: boolean;
  /** In the order of their names, which is that of their joining. */
  readonly members: readonly { readonly name: string; readonly member: Member }[];
  /** What weighs its members; each of the vectors is a factor. */
  readonly vectors: readonly (readonly Descriptor[])[];
  /** Members and vectors that say nothing, and endpoints of members ("member_1#http") that are none. */
  readonly faults: readonly { readonly name: string; readonly text: string }[];
}

/** What could not be read, and why. */
export interface Unread {
  readonly rule: SetRule;
  /** One of its sets; absent where it is not even known which there are, so that some may be missing among those that are known. */
  readonly path?: string;
  readonly text: string;
}

/** What is known of all sets. */
export interface Picture {
  /** As they are now, or, where they could not be read, as they last were. */
  readonly sets: readonly SetPicture[];
  readonly unread: readonly Unread[];
}

interface Place {
  readonly path: string;
  readonly stars: readonly string[];
}

/** Reads all sets; of those that cannot be read, `before` stands. @throws TrilithError `stopped` where the client was closed */
export async function readSets(
  rules: readonly SetRule[],
  znodes: Znodes,
  before: Picture | undefined,
): Promise<Picture> {
  const sets: SetPicture[] = [];
  const unread: Unread[] = [];
  const textOf = (error: unknown): string => {
    if (error instanceof TrilithError && error.code === "stopped") throw error;
    return messageOf(error);
  };
  for (const rule of rules) {
    const known = (before?.sets ?? []).filter((set) => set.rule === rule);
    let places: readonly Place[];
    try {
      places = await placesOf(rule.path, znodes);
    } catch (error) {
      unread.push({ rule, text: textOf(error) });
      sets.push(...known);
      continue;
    }
    for (const place of places)
      try {
        sets.push(await readSet(place, rule, znodes));
      } catch (error) {
        unread.push({ rule, path: place.path, text: textOf(error) });
        const last = known.find(({ path }) => path === place.path);
        if (last !== undefined) sets.push(last);
      }
  }
  return { sets, unread };
}

/** The sets' paths behind a path with or without "*". */
async function placesOf(path: string, znodes: Znodes): Promise<readonly Place[]> {
  let places: readonly Place[] = [{ path: "", stars: [] }];
  for (const part of path.split("/").slice(1)) {
    if (part !== "*") {
      places = places.map(({ path: above, stars }) => ({ path: `${above}/${part}`, stars }));
      continue;
    }
    const below = await inParts(places, async ({ path: above, stars }) => {
      const names = (await znodes.names(above === "" ? "/" : above)) ?? [];
      return names
        .filter((name) => !isMemberName(name) && !isVectorName(name) && !(above === "" && name === "zookeeper"))
        .sort()
        .map((name) => ({ path: `${above}/${name}`, stars: [...stars, name] }));
    });
    places = below.flat();
  }
  return places;
}

async function readSet({ path, stars }: Place, rule: SetRule, znodes: Znodes): Promise<SetPicture> {
  const names = await znodes.names(path);
  const members: { name: string; member: Member }[] = [];
  const faults: { name: string; text: string }[] = [];
  const vectors: (readonly Descriptor[])[] = [];
  const wanted = (names ?? []).filter((name) => isMemberName(name) || isVectorName(name)).sort();
  const found = await inParts(wanted, async (name) => ({ name, znode: await znodes.get(`${path}/${name}`) }));
  for (const { name, znode } of found) {
    // It went between the two questions.
    if (znode === undefined) continue;
    try {
      if (isVectorName(name)) vectors.push(decodeVector(znode.data));
      else {
        const member = decodeMember(znode.data);
        members.push({ name, member });
        for (const { endpoint, text } of member.faults ?? []) faults.push({ name: `${name}#${endpoint}`, text });
      }
    } catch (error) {
      faults.push({ name, text: messageOf(error) });
    }
  }
  return { path, rule, stars, there: names !== undefined, members, vectors, faults };
}
