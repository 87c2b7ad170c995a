// zookeeper://: services as ephemeral znodes, which come back after the session was lost and leave no empty folders behind.
import { codeOf, TrilithError } from "../../../base/error.ts";
import { openZooKeeper, type ZooKeeper } from "../../../base/zookeeper.ts";
import { type Backend, type BackendGround, type Entry, each, type Standing } from "./backend.ts";
import type { RegistryUri } from "./uri.ts";

const SESSION_MS = 10_000;
const DEFAULT_SERVER = "127.0.0.1:2181";
/** Another host may take the folder away, being empty, between its making and the znode's. */
const ATTEMPTS = 5;

/** JSON as Go writes it: with <, >, & and the two line separators escaped. */
function goJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function znodeData(entry: Entry): string {
  return goJson({
    Name: entry.name,
    IP: entry.ip,
    PublicPort: entry.port,
    PrivatePort: entry.exposedPort,
    ContainerID: entry.containerHostname,
    Tags: entry.tags,
    Attrs: entry.attributes,
  });
}

/** The backend for zookeeper://: `<path>/<name>/<ip>:<port>`, ephemeral, JSON. */
export function zookeeperBackend(uri: RegistryUri, ground: BackendGround): Backend {
  const base = uri.path.replace(/\/+$/, "");
  let opening: Promise<ZooKeeper> | undefined;
  let sessions = 0;
  const client = (): Promise<ZooKeeper> => {
    opening ??= openZooKeeper({
      servers: uri.host || DEFAULT_SERVER,
      sessionTimeoutMs: SESSION_MS,
      clock: ground.clock,
      onNews(news) {
        if (news.what === "away") return ground.say(`zookeeper: ${news.text}`);
        ground.say(`Connected to ${news.server}`);
        ground.say(`Authenticated: id=${BigInt(`0x${news.id}`)}, timeout=${news.timeoutMs}`);
        // Ephemeral znodes went with the last session.
        if (news.what === "session" && sessions++ > 0) ground.lost();
      },
    });
    return opening;
  };
  const parentOf = (place: string): string => place.slice(0, place.lastIndexOf("/"));

  async function write(zk: ZooKeeper, place: string, data: string): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        const standing = await zk.get(place);
        if (standing !== undefined && standing.stat.owner === zk.session()) await zk.set(place, data);
        // A session that is about to run out (this program's last one) would take the znode with it.
        else if (standing !== undefined) await zk.takeOver(place, data);
        else {
          await zk.makePath(parentOf(place));
          await zk.create(place, data, "ephemeral");
        }
        return;
      } catch (error) {
        if (!["conflict", "not-found"].includes(codeOf(error))) throw error;
        if (attempt === ATTEMPTS)
          throw new TrilithError("unavailable", error instanceof Error ? error.message : String(error), error);
      }
    }
  }

  return {
    scheme: uri.scheme,
    // Without brackets around IPv6, as Registrator writes it: others look for these names.
    place: ({ name, ip, port }) => `${base}/${name}/${ip}:${port}`,
    content: znodeData,
    async ping() {
      const zk = await client();
      if (base === "") await zk.get("/");
      else await zk.makePath(base);
    },
    async read(places) {
      const zk = await client();
      const found = new Map<string, string>();
      await each(places, async (place) => {
        const standing = await zk.get(place);
        if (standing === undefined) return;
        const own = standing.stat.owner !== "" && standing.stat.owner === zk.session();
        found.set(place, own ? standing.data.toString() : `of another session: ${standing.data.toString()}`);
      });
      return found;
    },
    async list() {
      // A znode's name tells no ID, and those of a dead session go by themselves: there is nothing to clean up.
      return [] satisfies Standing[];
    },
    async write(entry) {
      await write(await client(), this.place(entry), znodeData(entry));
    },
    async refresh() {},
    async remove(place) {
      const zk = await client();
      await zk.remove(place);
      for (let folder = parentOf(place); folder.length > base.length; folder = parentOf(folder)) {
        try {
          await zk.remove(folder);
        } catch (error) {
          // Others stand there, too.
          if (codeOf(error) === "conflict") return;
          throw error;
        }
      }
    },
    close: () => void opening?.then((zk) => zk.abandon()),
  };
}
