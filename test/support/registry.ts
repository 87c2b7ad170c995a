// A registry of images in memory for tests: as much of the OCI distribution API as docker push and docker pull need.
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";

/** A registry on loopback, which Docker takes without TLS. */
export interface Registry {
  /** `localhost:PORT` */
  readonly host: string;
  close(): Promise<void>;
}

const digestOf = (bytes: Uint8Array): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

/** Starts one on a free port. Uploads in pieces and in one; manifests by tag and by digest [OCI distribution 1.1 §Push, §Pull]. */
export async function startRegistry(): Promise<Registry> {
  const blobs = new Map<string, Buffer>();
  const uploads = new Map<string, Buffer>();
  const manifests = new Map<string, { readonly type: string; readonly bytes: Buffer }>();
  let count = 0;
  const server = createServer((request, response) => {
    void (async () => {
      const { pathname, searchParams } = new URL(request.url ?? "/", "http://registry");
      const body = await bodyOf(request);
      const reply = (status: number, headers: Record<string, string | number> = {}, bytes?: Buffer): void => {
        response.writeHead(status, { "content-length": bytes?.length ?? 0, ...headers });
        response.end(request.method === "HEAD" ? undefined : bytes);
      };
      const [, name = "", kind = "", last = ""] = /^\/v2\/(.+)\/(blobs|manifests)\/(.*)$/.exec(pathname) ?? [];
      if (pathname === "/v2/") return reply(200);
      if (kind === "blobs" && last === "uploads/") {
        const id = String(++count);
        uploads.set(id, body);
        return reply(202, { location: `/v2/${name}/blobs/uploads/${id}`, "docker-upload-uuid": id });
      }
      if (kind === "blobs" && last.startsWith("uploads/")) {
        const id = last.slice("uploads/".length);
        const whole = Buffer.concat([uploads.get(id) ?? Buffer.alloc(0), body]);
        const location = `/v2/${name}/blobs/uploads/${id}`;
        if (request.method === "PATCH") {
          uploads.set(id, whole);
          return reply(202, { location, range: `0-${whole.length - 1}`, "docker-upload-uuid": id });
        }
        const digest = searchParams.get("digest") ?? "";
        if (digestOf(whole) !== digest) return reply(400);
        uploads.delete(id);
        blobs.set(digest, whole);
        return reply(201, { location: `/v2/${name}/blobs/${digest}`, "docker-content-digest": digest });
      }
      if (kind === "blobs") {
        const bytes = blobs.get(last);
        if (bytes === undefined) return reply(404);
        const headers = { "content-type": "application/octet-stream", "docker-content-digest": last };
        return reply(200, { ...headers, "content-length": bytes.length }, bytes);
      }
      if (kind === "manifests" && request.method === "PUT") {
        const digest = digestOf(body);
        const kept = { type: request.headers["content-type"] ?? "", bytes: body };
        for (const key of [last, digest]) manifests.set(`${name} ${key}`, kept);
        return reply(201, { location: `/v2/${name}/manifests/${digest}`, "docker-content-digest": digest });
      }
      if (kind === "manifests") {
        const found = manifests.get(`${name} ${last}`);
        if (found === undefined) return reply(404);
        const { type, bytes } = found;
        const headers = { "content-type": type, "docker-content-digest": digestOf(bytes) };
        return reply(200, { ...headers, "content-length": bytes.length }, bytes);
      }
      reply(404);
    })().catch(() => response.destroy());
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  return {
    host: `localhost:${(server.address() as AddressInfo).port}`,
    close: () =>
      new Promise((closed) => {
        server.close(() => closed());
        server.closeAllConnections();
      }),
  };
}
