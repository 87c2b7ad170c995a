// Frames of Docker's streams: however they are cut they come out as they went in; what is no frame is said to be none.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { TrilithError } from "../../base/error.ts";
import { FrameReader } from "./frames.ts";

const TYPES = { stdin: 0, stdout: 1, stderr: 2 } as const;

function encode(stream: keyof typeof TYPES, bytes: Uint8Array): Uint8Array {
  const frame = new Uint8Array(8 + bytes.length);
  frame[0] = TYPES[stream];
  new DataView(frame.buffer).setUint32(4, bytes.length);
  frame.set(bytes, 8);
  return frame;
}

const frames = fc.array(
  fc.record({
    stream: fc.constantFrom("stdin" as const, "stdout" as const, "stderr" as const),
    bytes: fc.uint8Array({ maxLength: 300 }),
  }),
);

describe("frames", () => {
  test("however the stream is cut, the same comes out", () => {
    fc.assert(
      fc.property(frames, fc.array(fc.nat(400)), (list, cuts) => {
        const whole = Buffer.concat(list.map(({ stream, bytes }) => encode(stream, bytes)));
        const reader = new FrameReader();
        const found = { stdin: [], stdout: [], stderr: [] } as Record<keyof typeof TYPES, Uint8Array[]>;
        let at = 0;
        for (const size of [...cuts, whole.length]) {
          for (const { stream, bytes } of reader.take(whole.subarray(at, at + size)))
            found[stream].push(Uint8Array.from(bytes));
          at += size;
        }
        for (const stream of ["stdin", "stdout", "stderr"] as const)
          expect(Buffer.concat(found[stream])).toEqual(
            Buffer.concat(list.filter((one) => one.stream === stream).map(({ bytes }) => bytes)),
          );
        expect(reader.complete).toBe(true);
      }),
    );
  });

  test("a frame cut off is not complete", () => {
    const frame = encode("stdout", Buffer.from("hello"));
    for (let length = 1; length < frame.length; length++) {
      const reader = new FrameReader();
      for (const _ of reader.take(frame.subarray(0, length)));
      expect(reader.complete).toBe(false);
    }
  });

  test("what is no frame is said to be none", () => {
    expect(() => [...new FrameReader().take(Buffer.from("HTTP/1.1 400 Bad Request"))]).toThrow(
      new TrilithError("damaged", "a stream of the Docker engine has no frame of type 72"),
    );
    expect(() => [...new FrameReader().take(Uint8Array.from([1, 0, 1, 0, 0, 0, 0, 0]))]).toThrow(/no frame/);
  });
});
