// Which errors are this host's own lack of something, and which are somebody else's doing.
import { describe, expect, test } from "vitest";
import { wrap } from "./error.ts";
import { Shortage, throwIfShort } from "./shortage.ts";

const failed = (code: string, syscall: string): Error =>
  Object.assign(new Error(`${syscall} ${code} 10.0.0.1:80`), { code, syscall });

describe("a shortage", () => {
  test.each([
    [
      "no more descriptors",
      failed("EMFILE", "connect"),
      /may open no more files and connections.*: connect EMFILE 10\.0\.0\.1:80/,
    ],
    ["the whole host's", failed("ENFILE", "socket"), /fs\.file-max/],
    ["memory", failed("ENOMEM", "spawn /x"), /no memory left/],
    ["buffers", failed("ENOBUFS", "connect"), /network buffers/],
    ["processes", failed("EAGAIN", "spawn /x"), /may start no more processes/],
    ["below what was being done", wrap(wrap(failed("EMFILE", "connect"), "GET /"), "asking"), /no more files/],
    [
      "of all addresses that were tried",
      new AggregateError([failed("ECONNREFUSED", "connect"), failed("EMFILE", "connect")]),
      /no more files/,
    ],
  ])("%s", (_, error, text) => {
    expect(() => throwIfShort(error)).toThrow(Shortage);
    expect(() => throwIfShort(error)).toThrow(text);
  });

  test("that was found is handed on as it is", () => {
    const shortage = new Shortage("this host has no memory left", failed("ENOMEM", "read"));
    expect(() => throwIfShort(wrap(shortage, "asking"))).toThrow(shortage);
  });

  test("is in a message only for who says so", () => {
    const told = new Error("14 UNAVAILABLE: No connection established. Last error: connect EMFILE 10.0.0.1:80");
    expect(() => throwIfShort(told, true)).toThrow(Shortage);
    expect(() => throwIfShort(told)).not.toThrow();
  });

  test.each([
    failed("ECONNREFUSED", "connect"),
    failed("EAGAIN", "connect"),
    failed("ENOENT", "spawn /x"),
    Object.assign(new Error("x"), { code: "toString" }),
    "a text",
    undefined,
    null,
  ])("is not %s", (error) => {
    expect(() => throwIfShort(error, true)).not.toThrow();
  });
});
