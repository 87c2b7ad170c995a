// The suite over the stores that live in one process: memory and lmdb.
import { type Durable, openDurable } from "../../../src/base/durable.ts";
import type { Storage } from "../../../src/contracts/storage.ts";
import { lmdbStorage } from "../../../src/directory/storage/lmdb.ts";
import { memoryStorage } from "../../../src/directory/storage/memory.ts";
import { ownFolder } from "../../support/peers.ts";
import { describeStorage } from "./suite.ts";

describeStorage("memory", async () => {
  const storage = memoryStorage();
  return {
    client: async () => storage,
    restart: async () => false,
    end: () => storage.close(),
  };
});

describeStorage("lmdb", async () => {
  const folder = await ownFolder("lmdb-suite");
  let durable: Durable | undefined;
  let storage: Storage | undefined;
  const close = async (): Promise<void> => {
    await storage?.close();
    await durable?.close();
    storage = undefined;
    durable = undefined;
  };
  return {
    async client() {
      durable ??= await openDurable(folder.path);
      storage ??= lmdbStorage(durable);
      return storage;
    },
    async restart() {
      await close();
      return true;
    },
    async end() {
      await close();
      await folder.remove();
    },
  };
});
