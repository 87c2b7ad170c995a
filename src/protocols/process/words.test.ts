// What environments say: any bytes are read without harm, and control groups of every engine are known.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { groupOf, isOverwritten, wordsOf } from "./words.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

describe("an environment", () => {
  it("names a service for all ports or one", () => {
    expect(wordsOf(bytes("A=b\0SERVICE_NAME=web\0SERVICE_TAGS=a,b\0"))).toEqual({
      env: ["SERVICE_NAME=web", "SERVICE_TAGS=a,b"],
      wrapped: false,
    });
    expect(wordsOf(bytes("SERVICE_80_NAME=web"))?.env).toEqual(["SERVICE_80_NAME=web"]);
    expect(wordsOf(bytes("SERVICE_NAME=web\0TRILITH_RUN=1\0"))?.wrapped).toBe(true);
    expect(wordsOf(bytes("TRILITH_RUN=1\0SERVICE_NAME=web\0"))?.wrapped).toBe(true);
    expect(wordsOf(bytes("NO_TRILITH_RUN=1\0SERVICE_NAME=web\0"))?.wrapped).toBe(false);
  });
  it.each([
    "",
    "\0\0\0",
    "SERVICE_NAME=\0",
    "MY_SERVICE_NAME=web\0",
    "SERVICE_TAGS=a\0",
    "SERVICE_NAME\0=x",
    "X=SERVICE_NAME=web\0",
  ])("%j names none", (text) => expect(wordsOf(bytes(text))).toBeUndefined());
  it("may be anything", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.uint8Array({ maxLength: 40 }), (before, after) => {
        const clean = before.map((byte) => (byte === 0x53 ? 1 : byte));
        const all = new Uint8Array([
          ...clean,
          0,
          ...bytes("SERVICE_NAME=web"),
          0,
          ...after.map((byte) => (byte === 0x53 ? 1 : byte)),
        ]);
        expect(wordsOf(all)?.env).toEqual(["SERVICE_NAME=web"]);
        wordsOf(before);
      }),
    );
  });
  it("may be written over", () => {
    expect(isOverwritten(bytes("\0\0\0\0"))).toBe(true);
    expect(isOverwritten(bytes(""))).toBe(false);
    expect(isOverwritten(bytes("PATH=/bin\0"))).toBe(false);
  });
});

const ID = "0123456789abcdef".repeat(4);
describe("a control group", () => {
  it.each([
    [`0::/docker/${ID}`, ID, ""],
    [`0::/system.slice/docker-${ID}.scope`, ID, ""],
    [`12:pids:/docker/${ID}\n0::/`, ID, ""],
    [`0::/machine.slice/libpod-${ID}.scope/container`, ID, ""],
    [`0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-${ID}.scope`, ID, "user@1000.service"],
    [`0::/kubepods.slice/kubepods-besteffort.slice/cri-containerd-${ID}.scope`, "kubepods.slice", ""],
    [`0::/kubepods/besteffort/pod1/${ID}`, "kubepods", ""],
    [`0::/../${ID}`, ID, ""],
    ["0::/lxc.payload.box/system.slice/x.service", "lxc.payload.box", ""],
    ["0::/system.slice/web.service", "", "web.service"],
    ["1:name=systemd:/system.slice/web.service\n0::/system.slice/web.service", "", "web.service"],
    ["0::/user.slice/user-1000.slice/user@1000.service/app.slice/mine.service", "", "mine.service"],
    ["0::/", "", ""],
    ["", "", ""],
    ["no colon", "", ""],
  ])("%s", (text, container, unit) => expect(groupOf(text)).toEqual({ container, unit }));
});
