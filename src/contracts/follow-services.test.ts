// Answers for all services: new ones come in, those that are gone are followed while they are held, and then no more.
import { expect, it } from "vitest";
import { nodeChange, serviceChange } from "../../test/support/directory.ts";
import { world } from "../../test/support/lookup.ts";
import { FollowedServices } from "./follow-services.ts";

it("follows what there is, what is held, and nothing else", async () => {
  const { clock, directory, lookup, list } = await world();
  let changes = 0;
  const followed = new FollowedServices({
    ...{ directory, lookup, services: undefined, query: { order: "stable" }, changed: () => changes++ },
  });
  const over = new AbortController();
  const running = followed.run(over.signal);
  const told = (): readonly string[] =>
    [...followed.answers()].map(([name, { endpoints }]) => `${name} ${endpoints.length}`);
  await directory.write([nodeChange("box", "10.0.0.1"), serviceChange("box", "d", "Db", { port: 1 })]);
  await list("web", ["m1", "m2", "m3"]);
  await clock.advance(500);
  expect(told()).toEqual(["db 1", "web 3"]);
  const waiting = directory.waiting;
  await list("web", []);
  await clock.advance(500);
  expect([...directory.view().serviceNames()]).toEqual(["Db"]);
  expect(told()).toEqual(["db 1", "web 3"]);
  lookup.release("web");
  await clock.advance(500);
  expect(told()).toEqual(["db 1"]);
  expect(directory.waiting).toBeLessThan(waiting);
  const before = changes;
  await clock.advance(60_000);
  expect(changes).toBe(before);
  over.abort(new Error("enough"));
  await running;
  lookup.stop();
});
