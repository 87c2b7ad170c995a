// What is kept of outputs: heads, tails, the notes about the rest; Go's words for failures.
import fc from "fast-check";
import { expect, test } from "vitest";
import { TrilithError } from "../../base/error.ts";
import { head, Tail, tailNote, textOf } from "../../wire/check-output.ts";
import { splitHostPort } from "./detail.ts";
import { goExecError, goNetworkError } from "./go-text.ts";
import { expiredOutput } from "./ttl.ts";

test("heads are counted in bytes and say what was cut [recorded: check-ttl]", () => {
  expect(head("0123456789abcdef", 10)).toBe("0123456789 ... (captured 10 of 16 bytes)");
  expect(head("0123456789", 10)).toBe("0123456789");
  expect(head("ääää", 8)).toBe("ääää");
  expect(head("äääää", 8)).toBe("ääää ... (captured 8 of 10 bytes)");
});

test("tails say what was cut [recorded: check-script]", () => {
  const bytes = new TextEncoder().encode("first line\nsecond line\nthird");
  expect(tailNote(bytes.subarray(12), 28)).toBe("Captured 16 of 28 bytes\n...\necond line\nthird");
  expect(tailNote(bytes, 28)).toBe("first line\nsecond line\nthird");
});

test("a tail is the end of what flowed by, whatever the pieces", () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 200 }),
      fc.integer({ min: 1, max: 50 }),
      (pieces, max) => {
        const tail = new Tail(max);
        for (const piece of pieces) tail.add(piece);
        const all = Buffer.concat(pieces);
        expect(tail.totalBytes).toBe(all.length);
        expect(Buffer.from(tail.bytes())).toEqual(Buffer.from(all.subarray(Math.max(0, all.length - max))));
      },
    ),
  );
});

test("bytes that are no text do no harm", () => {
  expect(textOf(new Uint8Array([0x61, 0xff, 0x62]))).toBe("a\ufffdb");
});

test("a TTL that ran out [recorded: check-ttl]", () => {
  expect(expiredOutput("")).toBe("TTL expired");
  expect(expiredOutput("alive")).toBe("TTL expired (last output before timeout follows): alive");
  expect(expiredOutput(expiredOutput("alive"))).toBe(expiredOutput("alive"));
});

test("failures in Go's words", () => {
  const failure = (code: string, more: object = {}): Error => Object.assign(new Error(code), { code, ...more });
  const wrapped = (cause: unknown): Error => new TrilithError("unavailable", "connecting", cause);
  const refused = failure("ECONNREFUSED", { syscall: "connect", address: "127.0.0.1", port: 1 });
  expect(goNetworkError(wrapped(refused), "x:1")).toBe("dial tcp 127.0.0.1:1: connect: connection refused");
  const six = failure("ECONNREFUSED", { syscall: "connect", address: "::1", port: 1 });
  expect(
    goNetworkError(wrapped(Object.assign(new AggregateError([six, refused]), { code: "ECONNREFUSED" })), "x:1"),
  ).toBe("dial tcp 127.0.0.1:1: connect: connection refused");
  expect(goNetworkError(six, "x:1")).toBe("dial tcp [::1]:1: connect: connection refused");
  expect(goNetworkError(wrapped(failure("ENOTFOUND", { hostname: "no.example" })), "no.example:1")).toBe(
    "dial tcp: lookup no.example: no such host",
  );
  expect(goNetworkError(failure("ECONNRESET", { syscall: "read" }), "h:1")).toBe(
    "read tcp h:1: read: connection reset by peer",
  );
  expect(goNetworkError(failure("UND_ERR_SOCKET"), "h:1")).toBe("EOF");
  expect(goNetworkError(failure("UND_ERR_SOCKET", { cause: failure("ECONNRESET", { syscall: "read" }) }), "h:1")).toBe(
    "read tcp h:1: read: connection reset by peer",
  );
  expect(goNetworkError(wrapped(failure("DEPTH_ZERO_SELF_SIGNED_CERT")), "h:1")).toBe(
    "tls: failed to verify certificate: x509: certificate signed by unknown authority",
  );
  expect(goNetworkError(new Error("something else"), "h:1")).toBe("something else");
  expect(goExecError(failure("ENOENT"), "/nonexistent/command")).toBe(
    "fork/exec /nonexistent/command: no such file or directory",
  );
  expect(goExecError(failure("ENOENT"), "nonsense")).toBe('exec: "nonsense": executable file not found in $PATH');
});

test("host and port", () => {
  expect(splitHostPort("127.0.0.1:80")).toEqual({ host: "127.0.0.1", port: 80 });
  expect(splitHostPort("[::1]:80")).toEqual({ host: "::1", port: 80 });
  expect(splitHostPort("localhost:65535")).toEqual({ host: "localhost", port: 65_535 });
  for (const bad of ["", "80", "h", "h:", ":80", "::1:80", "h:65536", "h:x", "[::1]"])
    expect(splitHostPort(bad), bad).toBeUndefined();
});
