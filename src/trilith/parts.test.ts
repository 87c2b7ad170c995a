// The parts taken together: what a reload hands to each, and whose configuration waits for a restart.
import { expect, it } from "vitest";
import { callbackLog } from "../base/log.ts";
import { Parts } from "./parts.ts";

it("a reload hands each part its configuration, says which ones count after a restart only, and fails as the first that does", async () => {
  const said: string[] = [];
  const log = callbackLog((level, _part, text) => void said.push(`${level} ${text}`));
  const read: unknown[] = [];
  const parts = new Parts();
  parts.add("taking", { rereads: true, reload: async (now) => void read.push(now) }, { a: 1 });
  parts.add("deaf", {}, { path: "/etc/hosts" });
  parts.add("files", { reload: async () => void read.push("files") }, { ports: [1] });
  parts.add("off", undefined, false);
  parts.add("unset", undefined, undefined);
  const now: Record<string, unknown> = {
    taking: { a: 2 },
    files: { ports: [1] },
    deaf: { path: "/etc/hosts" },
    off: false,
  };
  const reload = () => parts.reload(log, (protocol) => now[protocol]);
  await parts.reload(log);
  await reload();
  expect(read.splice(0)).toEqual([undefined, "files", { raw: { a: 2 } }, "files"]);
  expect(said).toEqual([]);
  now["unset"] = false;
  now["off"] = undefined;
  await reload();
  expect(said).toEqual([]);
  now["deaf"] = { path: "/run/hosts" };
  now["files"] = { ports: [2] };
  now["off"] = now["unset"] = {};
  await reload();
  expect(said.splice(0)).toEqual(
    ["deaf", "files", "off", "unset"].map(
      (protocol) => `warn the configuration of ${protocol} is another one now: it counts after a restart`,
    ),
  );
  parts.add("broken", { reload: () => Promise.reject(new Error("no such file")) }, undefined);
  await expect(reload()).rejects.toThrow("no such file");
  expect(said).toContain("error broken: could not read everything again");
});
