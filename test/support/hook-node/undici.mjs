// A program with undici of its own that knows nothing of Trilith.
import { Agent, fetch, request, setGlobalDispatcher } from "undici";

const url = "http://web.service.consul/";
const seen = [await (await fetch(url)).text(), await (await request(url)).body.text()];
setGlobalDispatcher(new Agent({ connect: { autoSelectFamily: true }, pipelining: 0 }));
seen.push(await (await fetch(url)).text(), await (await globalThis.fetch(url)).text());
process.stdout.write(`${JSON.stringify(seen)}\n`);
