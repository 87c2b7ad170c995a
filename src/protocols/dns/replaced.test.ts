// Answers by another configuration from one moment to the next; what was asked before is still answered, and stopping ends all of it.
import { expect, it } from "vitest";
import type { Responder } from "./answer.ts";
import { ReplacedResponder } from "./replaced.ts";

const FROM = { address: "127.0.0.1", tcp: false };

/** Responders that answer with their name's length, at once where a question's first byte is even; `answer` has the oldest other one answered. */
function world() {
  const did: string[] = [];
  const waiting = new Map<string, ((answer: Uint8Array) => void)[]>();
  const responder = (name: string): Responder => ({
    respond: ((packet: Uint8Array, _from: unknown, later?: (answer: Uint8Array) => void) => {
      if ((packet[0] as number) % 2 === 0 || later === undefined) return Uint8Array.of(...packet, name.length);
      waiting.set(name, [...(waiting.get(name) ?? []), later]);
      return "later";
    }) as Responder["respond"],
    stop: () => void did.push(`stop ${name}`),
  });
  const answer = (name: string): void => waiting.get(name)?.shift()?.(Uint8Array.of(name.length));
  const heard = (bytes: Uint8Array): void => void did.push(`heard ${bytes.join()}`);
  return { did, responder, answer, heard };
}

it("hands new questions to the new one, and ends the old one with the last answer that it owes", () => {
  const { did, responder, answer, heard } = world();
  const replaced = new ReplacedResponder(responder("a"));
  expect(replaced.respond(Uint8Array.of(2), FROM)).toEqual(Uint8Array.of(2, 1));
  expect(replaced.respond(Uint8Array.of(2), FROM, heard)).toEqual(Uint8Array.of(2, 1));
  expect(replaced.respond(Uint8Array.of(1), FROM, heard)).toBe("later");
  expect(replaced.respond(Uint8Array.of(3), FROM, heard)).toBe("later");
  answer("a");
  replaced.replace(responder("bb"));
  expect(replaced.respond(Uint8Array.of(2), FROM, heard)).toEqual(Uint8Array.of(2, 2));
  expect(replaced.respond(Uint8Array.of(5), FROM, heard)).toBe("later");
  answer("bb");
  expect(did.splice(0)).toEqual(["heard 1", "heard 2"]);
  answer("a");
  expect(did.splice(0)).toEqual(["heard 1", "stop a"]);
  // One that owes nothing ends at once.
  replaced.replace(responder("ccc"));
  expect(did).toEqual(["stop bb"]);
});

it("stops all of them once, whatever they owe", () => {
  const { did, responder, heard } = world();
  const replaced = new ReplacedResponder(responder("a"));
  replaced.respond(Uint8Array.of(1), FROM, heard);
  replaced.replace(responder("bb"));
  replaced.respond(Uint8Array.of(1), FROM, heard);
  replaced.stop();
  expect(did.splice(0)).toEqual(["stop a", "stop bb"]);
  // It may listen again, and owes nothing of before.
  expect(replaced.respond(Uint8Array.of(2), FROM, heard)).toEqual(Uint8Array.of(2, 2));
  replaced.replace(responder("ccc"));
  expect(did).toEqual(["stop bb"]);
});
