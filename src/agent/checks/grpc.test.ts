// The two messages of grpc.health.v1: written as protocol buffers write them, read whatever a server sends.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodeHealthResponse, encodeHealthRequest } from "./grpc.ts";

describe("messages", () => {
  test("the request holds the service's name, or nothing", () => {
    expect([...encodeHealthRequest("")]).toEqual([]);
    expect([...encodeHealthRequest("web")]).toEqual([0x0a, 3, 0x77, 0x65, 0x62]);
    expect([...encodeHealthRequest("x".repeat(300)).subarray(0, 3)]).toEqual([0x0a, 0xac, 0x02]);
    expect([...encodeHealthRequest("ä")]).toEqual([0x0a, 2, 0xc3, 0xa4]);
  });

  test("the response's status is found among fields of later versions; none is UNKNOWN", () => {
    expect(decodeHealthResponse(Uint8Array.from([]))).toBe(0);
    expect(decodeHealthResponse(Uint8Array.from([0x08, 1]))).toBe(1);
    expect(decodeHealthResponse(Uint8Array.from([0x12, 2, 9, 9, 0x08, 2, 0x19, 1, 2, 3, 4, 5, 6, 7, 8]))).toBe(2);
    expect(decodeHealthResponse(Uint8Array.from([0x1d, 1, 2, 3, 4, 0x08, 1, 0x20, 0xff, 0xff, 3]))).toBe(1);
  });

  test("anything else is a RangeError, never a hang or a crash", () => {
    expect(() => decodeHealthResponse(Uint8Array.from([0x08]))).toThrow(RangeError);
    expect(() => decodeHealthResponse(Uint8Array.from([0x12, 5, 1]))).toThrow(RangeError);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        try {
          expect(decodeHealthResponse(bytes)).toBeGreaterThanOrEqual(0);
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError);
        }
      }),
    );
  });
});
