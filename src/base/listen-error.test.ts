// Tests the advice to addresses that the system refuses.
import { expect, test } from "vitest";
import { wrap } from "./error.ts";
import { explainListening } from "./listen-error.ts";

const refused = (code: string) =>
  wrap(Object.assign(new Error(`listen ${code}`), { code }), "listening for HTTP on 127.0.0.1:80");

test("a port below 1024 needs a privilege, and how it is had is said", () => {
  expect(explainListening(refused("EACCES"), 80)).toMatchObject({
    code: "not-allowed",
    message: expect.stringContaining("port 80 needs a privilege: run as root") as string,
  });
});

test("an address of another host is named, and where this host's own stand", () => {
  expect(explainListening(refused("EADDRNOTAVAIL"), 8500)).toMatchObject({
    message: expect.stringMatching(/127\.0\.0\.1:80: .*: this host has no such address; "ip addr"/) as string,
  });
});

test("other errors stay as they are", () => {
  for (const [code, port] of [
    ["EACCES", 8500],
    ["EACCES", -1],
    ["EADDRINUSE", 80],
  ] as const) {
    const error = refused(code);
    expect(explainListening(error, port)).toBe(error);
  }
});
