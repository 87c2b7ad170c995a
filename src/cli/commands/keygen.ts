// `trilith keygen`: a random key of 32 bytes, as Consul's tools take them.
import { systemRandom } from "../../base/random.ts";
import type { Command } from "../io.ts";

export const command: Command = {
  name: "keygen",
  summary: "a random key of 32 bytes in base64",
  define(parser, io, done) {
    parser.action(() => {
      io.out(`${Buffer.from(systemRandom.bytes(32)).toString("base64")}\n`);
      done(0);
    });
  },
};
