// Settings that cannot be meant, as a file tells them: each is told with what would be right.
import { expect, test } from "vitest";
import type { Settings } from "../contracts/settings.ts";
import { settingsFaults } from "../trilith.ts";

const cases: readonly (readonly [Partial<Settings>, readonly RegExp[]])[] = [
  [{}, []],
  [{ node: "a", datacenter: "dc-1", domain: "x.consul", magic: { v4: "127.200.0.0/16", v6: "fd00:1:2::/48" } }, []],
  [{ domain: "a b" }, [/domain "a b": expected a DNS name/]],
  [{ datacenter: "a/b" }, [/datacenter "a\/b": expected a name/]],
  [{ magic: { v4: "bogus" } }, [/magic\.v4: expected a range such as/]],
  [{ node: "", magic: { v6: "::1/128" } }, [/node "": expected a name/, /magic\.v6: .*unique local/]],
  [{ magic: { v4: "8.8.8.0/24" }, protocols: { proxi: {} } }, [/of the internet/, /protocol "proxi": there are/]],
];

test.each(cases)("%j", async (told, texts) => {
  const faults = await settingsFaults(told);
  expect(faults).toEqual(texts.map((text) => expect.stringMatching(text)));
});
