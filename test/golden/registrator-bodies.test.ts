// The bodies that `trilith registrator consul://` sends, against those recorded of Registrator: for every container of the recordings.
import { describe, expect, it } from "vitest";
import { registrationBody } from "../../src/protocols/docker/backends/consul.ts";
import { createEntries } from "../../src/protocols/docker/registrator-command/entries.ts";
import { translate } from "../../src/protocols/docker/registrator.ts";
import { parseGoDuration } from "../../src/wire/duration.ts";
import { cases, containersOf, fill, optionsOf, type Recorded } from "./registrator-cases.ts";
import { expectations } from "./registrator-expectations.ts";

type Json = Readonly<Record<string, unknown>>;
const DURATIONS = ["Interval", "Timeout", "TTL", "DeregisterCriticalServiceAfter"];

/** The same meaning as the same text: no nulls, no empty texts, durations in milliseconds, keys in order, numbers where marks stood. */
function meaning(body: Json): string {
  const check = (body["Check"] ?? {}) as Json;
  const shown = Object.entries(check).map(([key, value]) => [
    key,
    DURATIONS.includes(key) ? parseGoDuration(String(value)) : value,
  ]);
  const facts = { ...body, Port: Number(body["Port"]), Check: shown.sort(([a], [b]) => (String(a) < String(b) ? -1 : 1)) };
  const meta = Object.entries((body["Meta"] ?? {}) as Json).sort(([a], [b]) => (a < b ? -1 : 1));
  const all: [string, unknown][] = Object.entries({ ...facts, Meta: meta });
  return JSON.stringify(
    all
      .filter(([, value]) => value !== null && value !== "" && JSON.stringify(value) !== "[]")
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

function bodiesOf(recorded: Recorded): Json[] {
  const containers = containersOf(recorded);
  const entries = createEntries();
  const { tags, ...options } = optionsOf(recorded, true);
  const asGiven = { parse: (raw: unknown): unknown => raw };
  const list = containers.flatMap(
    (container) =>
      translate(
        container,
        {
          ...options,
          probes: new Map(["http", "tcp", "script", "grpc"].map((kind) => [kind, asGiven])),
          tags(one) {
            entries.seen(one);
            return tags(one);
          },
        },
        (id) => containers.find((other) => other.id === id || other.name === id),
      ).registrations,
  );
  return entries.of({ list, authority: "first-hand" }).map(registrationBody);
}

describe("registration bodies", () => {
  const same = cases.filter(({ name }) => ["same", "compat-only"].includes(expectations[name] as string));

  it("there are many", () => expect(same.length).toBeGreaterThan(100));

  for (const recorded of same)
    it(recorded.name, () => {
      const containers = containersOf(recorded);
      const sent = bodiesOf(recorded);
      const seen = (recorded.puts ?? []).map(({ body }) => meaning(fill(body, containers) as Json));
      // Where several ports or labels fight for one place, Registrator sends all of them and the last one wins.
      for (const body of sent) expect(seen).toContain(meaning(body));
      const ids = new Set((recorded.puts ?? []).map(({ body }) => (fill(body, containers) as Json)["ID"]));
      expect(new Set(sent.map(({ ID }) => ID))).toEqual(ids);
    });
});
