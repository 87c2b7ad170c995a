// package-lock.json names what every system needs, so that `npm ci` works on any machine, not only on the one that wrote it.
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";

interface Locked {
  readonly version?: string;
  readonly optional?: boolean;
  readonly os?: readonly string[];
  readonly cpu?: readonly string[];
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}
const { packages } = JSON.parse(readFileSync(new URL("../package-lock.json", import.meta.url), "utf8")) as {
  readonly packages: Readonly<Record<string, Locked>>;
};

it("holds every package that some system needs, with the systems it is for", () => {
  const wrong: string[] = [];
  let systems = 0;
  for (const [path, { optionalDependencies = {} }] of Object.entries(packages))
    for (const name of Object.keys(optionalDependencies)) {
      const found = packages[`${path}/node_modules/${name}`] ?? packages[`node_modules/${name}`];
      if (found === undefined) wrong.push(`${name}, which ${path} needs, is missing`);
      else if (/-(darwin|win32|android|freebsd|openharmony|linux)-/.test(name)) {
        systems++;
        if (found.optional !== true || found.os?.length !== 1 || found.cpu?.length !== 1)
          wrong.push(`${name} does not say which system it is for`);
      }
    }
  expect(wrong).toEqual([]);
  expect(systems).toBeGreaterThan(20);
});
