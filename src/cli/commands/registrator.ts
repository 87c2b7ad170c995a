// `trilith registrator`: Registrator's own command line; the work is done in protocols/docker/cli.ts.
import type { Command } from "../io.ts";

export const command: Command = {
  name: "registrator",
  summary: "Registrator's command line: containers into consul, consulkv, etcd, skydns2 or zookeeper",
  define(parser) {
    parser
      .argument("<uri>", "consul://… consul-unix://… consul-tls://… consulkv://… etcd://… skydns2://… zookeeper://…")
      .option("--cleanup", "remove dangling services")
      .option("--deregister <when>", "exited services: always or on-success", "always")
      .option("--explicit", "only containers with SERVICE_NAME")
      .option("--internal", "internal ports instead of published ones")
      .option("--ip <address>", "the address for ports mapped to the host")
      .option("--resync <seconds>", "how often to look at everything again")
      .option("--retry-attempts <count>", "how often to try to reach the backend at startup; -1 = for ever")
      .option("--retry-interval <ms>", "how long to wait between these", "2000")
      .option("--tags <template>", "further tags (a Go template)")
      .option("--ttl <seconds>", "TTL of entries in etcd and skydns2")
      .option("--ttl-refresh <seconds>", "how often they are refreshed")
      .option("--useIpFromLabel <label>", "take the address from this label");
  },
  async verbatim(words, io) {
    // Ended by a signal as the original is: nothing is deregistered.
    io.close();
    const { registrator } = await import("../../protocols/docker/cli.ts");
    return await registrator(words, io);
  },
};
