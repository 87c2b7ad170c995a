// The law of sources that read several things: a failing entry does not age its siblings, and everybody is told which one fails, and why.
import { expect } from "vitest";
import type { DoctorJson, WhyJson } from "../../src/protocols/api/shapes.ts";
import type { RunningAgent } from "./ground.ts";
import { eventually } from "./peers.ts";

export interface Siblings {
  readonly source: string;
  /** Services, each of which comes from an entry of its own. */
  readonly failing: string;
  readonly well: string;
  /** What the failing entry is called. */
  readonly entry: string;
  /** Part of the reason that is told. */
  readonly why: RegExp;
  fail(): Promise<unknown> | unknown;
  mend(): Promise<unknown> | unknown;
}

/** Shows the law on an agent that reads both. */
export async function holdsForSiblings(
  { trilith, url }: Pick<RunningAgent, "trilith" | "url">,
  { source, failing, well, entry, why, fail, mend }: Siblings,
): Promise<void> {
  const answer = (service: string) => trilith.lookup.resolveNow({ service, order: "stable" });
  const places = (service: string): string =>
    answer(service)
      .endpoints.map(({ address, port }) => `${address}:${port}`)
      .join();
  const isFresh = (service: string): boolean => answer(service).fresh && answer(service).endpoints.length > 0;
  await eventually("both are fresh", () => isFresh(failing) && isFresh(well), 30_000);
  const before = [failing, well].map(places);
  await fail();
  await eventually(`${entry} is stale`, () => !answer(failing).fresh, 60_000);
  /** The law, as long as it fails. */
  const stands = (): void => {
    expect(answer(well)).toMatchObject({ fresh: true, ageMs: 0 });
    expect([failing, well].map(places)).toEqual(before);
  };
  stands();
  await eventually("its age is told", () => answer(failing).ageMs > 0);
  const told = (service: string): string =>
    trilith.lookup
      .explain({ service })
      .map(({ text }) => text)
      .join("\n");
  await eventually("the reason is told", () => why.test(told(failing)));
  stands();
  expect(told(failing)).toContain(`: ${source}: ${entry}: `);
  expect(told(well)).not.toContain("last known");
  const whyOf = async (service: string): Promise<WhyJson> =>
    (await (await fetch(`${url}/v1/trilith/why/${service}`)).json()) as WhyJson;
  expect((await whyOf(failing)).instances.map(({ lastKnown }) => lastKnown?.text)).toEqual([
    expect.stringMatching(why),
  ]);
  expect((await whyOf(well)).instances.map(({ lastKnown }) => lastKnown)).toEqual([undefined]);
  const doctor = (await (await fetch(`${url}/v1/trilith/doctor`)).json()) as DoctorJson;
  expect(doctor.sources.find(({ name }) => name === source)?.unwell).toEqual([
    { name: entry, text: expect.stringMatching(why) },
  ]);
  // Once, and not as a complaint besides.
  expect(doctor.warnings.filter((text) => text.includes(entry))).toEqual([
    expect.stringMatching(`^source ${source}: `),
  ]);
  stands();
  await mend();
  await eventually(`${entry} is fresh again`, () => isFresh(failing), 30_000);
  expect(answer(well).fresh).toBe(true);
}
