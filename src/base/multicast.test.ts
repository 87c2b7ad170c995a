// Multicast groups on loopback: members of one port hear each other, who is gone hears nothing, and what is wrong is said.
import { createSocket } from "node:dgram";
import { describe, expect, it } from "vitest";
import { type MulticastFrom, systemNet } from "./net.ts";

const on = { interface: "lo", address: "127.0.0.1", group: "239.255.77.1", hops: 1 };

async function freeUdpPort(): Promise<number> {
  const socket = createSocket("udp4");
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  const { port } = socket.address();
  await new Promise<void>((resolve) => socket.close(resolve));
  return port;
}

describe("a multicast group", () => {
  it("is heard by every member on the port, and what is sent to one host by who asked for that", async () => {
    const port = await freeUdpPort();
    expect(await systemNet.isUdpPortFree(port)).toBe(true);
    const heard: { who: string; text: string; from: MulticastFrom }[] = [];
    let more: (() => void) | undefined;
    const hear = (who: string) => (bytes: Uint8Array, from: MulticastFrom) => {
      heard.push({ who, text: Buffer.from(bytes).toString(), from });
      more?.();
    };
    const until = async (count: number): Promise<void> => {
      while (heard.length < count)
        await new Promise<void>((resolve) => {
          more = resolve;
        });
    };
    const a = await systemNet.multicast({ ...on, port, direct: true }, hear("a"));
    const b = await systemNet.multicast({ ...on, port }, hear("b"));
    expect(await systemNet.isUdpPortFree(port)).toBe(false);
    a.send(Buffer.from("all"));
    await until(2);
    expect(heard.map(({ who }) => who).sort()).toEqual(["a", "b"]);
    expect(heard[0]).toMatchObject({ text: "all", from: { address: "127.0.0.1", port, direct: false } });
    b.send(Buffer.from("one"), { address: "127.0.0.1", port });
    await until(3);
    expect(heard[2]).toMatchObject({ who: "a", text: "one", from: { direct: true } });
    await a.close();
    b.send(Buffer.from("late"));
    await until(4);
    expect(heard.slice(3).map(({ who }) => who)).toEqual(["b"]);
    await Promise.all([a.close(), b.close(), b.close()]);
    expect(await systemNet.isUdpPortFree(port)).toBe(true);
  });

  it("that cannot be joined says which, and leaves no socket", async () => {
    const port = await freeUdpPort();
    const joining = systemNet.multicast({ ...on, address: "192.0.2.1", port }, () => {});
    await expect(joining).rejects.toThrow("joining 239.255.77.1 on lo");
    expect(await systemNet.isUdpPortFree(port)).toBe(true);
  });
});
