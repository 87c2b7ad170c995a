// The DNS on the wire: names, records and messages, to bytes and back.
export * from "./address.ts";
export * from "./constants.ts";
export * from "./decode.ts";
export * from "./encode.ts";
export type * from "./message.ts";
export * from "./name.ts";
export * from "./nameservers.ts";
