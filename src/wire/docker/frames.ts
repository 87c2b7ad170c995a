// Docker's multiplexed streams: what a process without a terminal writes, as frames of standard output and standard error.
import { TrilithError } from "../../base/error.ts";

/** A piece of one of the streams [Docker Engine API, "Stream format" of ContainerAttach]. */
export interface Frame {
  readonly stream: "stdin" | "stdout" | "stderr";
  readonly bytes: Uint8Array;
}

const STREAMS = ["stdin", "stdout", "stderr"] as const;
const HEADER_BYTES = 8;

/** Takes frames out of a stream however it is cut; a frame's content is handed on as it comes, without waiting for its end. */
export class FrameReader {
  readonly #header = new Uint8Array(HEADER_BYTES);
  #headerBytes = 0;
  /** What is still missing of the frame under way. */
  #left = 0;
  #stream: Frame["stream"] = "stdout";

  /** The pieces in a chunk. @throws TrilithError `damaged` where there is no frame header in its place */
  *take(chunk: Uint8Array): Iterable<Frame> {
    for (let at = 0; at < chunk.length; ) {
      if (this.#left > 0) {
        const bytes = chunk.subarray(at, at + this.#left);
        at += bytes.length;
        this.#left -= bytes.length;
        yield { stream: this.#stream, bytes };
        continue;
      }
      this.#header[this.#headerBytes++] = chunk[at++] as number;
      if (this.#headerBytes < HEADER_BYTES) continue;
      this.#headerBytes = 0;
      const [type = 255, ...zeros] = this.#header.subarray(0, 4);
      const stream = STREAMS[type];
      if (stream === undefined || zeros.some((byte) => byte !== 0))
        throw new TrilithError("damaged", `a stream of the Docker engine has no frame of type ${type}`);
      this.#stream = stream;
      this.#left = new DataView(this.#header.buffer).getUint32(4);
    }
  }

  /** True where the stream may end. */
  get complete(): boolean {
    return this.#left === 0 && this.#headerBytes === 0;
  }
}
