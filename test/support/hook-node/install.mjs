// A program that lets Node's own fetch know services by trilith/undici, whose file is the first argument, and has a socket by the library's connect (the second one); the third is a certificate.
import { readFileSync } from "node:fs";
import { Readable } from "node:stream";

const [door, library, ca] = process.argv.slice(2);
const { install } = await import(door);
const { connect } = await import(library);

const agent = install(ca === undefined ? {} : { connect: { ca: readFileSync(ca) } });
const url = "http://web.service.consul/";
const seen = [await (await fetch(url)).text(), await (await fetch(url, { method: "POST", body: "text" })).text()];
const body = Readable.toWeb(Readable.from([Buffer.from("a"), Buffer.from("b")]));
seen.push(await (await fetch(url, { method: "POST", body, duplex: "half" })).text());
const answer = await agent.request({ origin: "trilith://web", path: "/", method: "GET" });
seen.push(await answer.body.text());
const failed = await fetch("http://nobody.service.consul/").catch((error) => error.cause.message);
const socket = await connect("web");
socket.end("GET / HTTP/1.0\r\nHost: socket\r\n\r\n");
const text = (await socket.setEncoding("utf8").toArray()).join("");
seen.push(failed, text.split("\r\n\r\n")[1]);
if (ca !== undefined) seen.push(await (await fetch("https://secure.service.consul/")).text());
process.stdout.write(`${JSON.stringify(seen)}\n`);
