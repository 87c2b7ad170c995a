// gRPC for tests: a service that tells who answers, servers of it as processes, and callers that never pause and count what fails.
import { spawn } from "node:child_process";
import { join } from "node:path";
import grpc from "@grpc/grpc-js";

const text = {
  serialize: (value: string): Buffer => Buffer.from(value),
  read: (bytes: Buffer): string => bytes.toString(),
};

/** One unary method, texts both ways; needs no proto file. */
export const WHO: grpc.ServiceDefinition = {
  who: {
    path: "/test.Who/Who",
    requestStream: false,
    responseStream: false,
    requestSerialize: text.serialize,
    requestDeserialize: text.read,
    responseSerialize: text.serialize,
    responseDeserialize: text.read,
  },
};

/** A process with a gRPC server in it. */
export interface GrpcServer {
  readonly port: string;
  /** Resolves when it has ended. */
  end(signal: NodeJS.Signals): Promise<void>;
}

/** Starts a server that advertises itself; resolves when its port is known and it was advertised. */
export async function startGrpcServer(
  words: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<GrpcServer> {
  const script = join(import.meta.dirname, "grpc-server.ts");
  const child = spawn(process.execPath, ["--import", "tsx", script, ...words], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, ...env },
  });
  const ended = new Promise<void>((done) => child.once("exit", () => done()));
  const port = await new Promise<string>((done, failed) => {
    child.stdout.once("data", (chunk: Buffer) => done(chunk.toString().trim()));
    child.once("exit", (code) => failed(new Error(`the gRPC server ended with ${code}`)));
  });
  return {
    port,
    async end(signal) {
      child.kill(signal);
      await ended;
    },
  };
}

/** A client of the service. */
export interface Caller {
  /** The port of who answered. Waits for a server only where `wait`. @throws ServiceError */
  call(options?: { readonly wait?: boolean; readonly deadlineMs?: number }): Promise<string>;
  close(): void;
}

export function caller(target: string, options: grpc.ClientOptions = {}): Caller {
  const Client = grpc.makeGenericClientConstructor(WHO, "Who");
  const client = new Client(target, grpc.credentials.createInsecure(), options) as unknown as grpc.Client & {
    who(
      request: string,
      metadata: grpc.Metadata,
      options: grpc.CallOptions,
      done: (error: grpc.ServiceError | null, answer: string) => void,
    ): void;
  };
  return {
    call: ({ wait = false, deadlineMs = 10_000 } = {}) =>
      new Promise((done, failed) =>
        client.who(
          "who?",
          new grpc.Metadata({ waitForReady: wait }),
          { deadline: Date.now() + deadlineMs },
          (error, answer) => (error === null ? done(answer) : failed(error)),
        ),
      ),
    close: () => client.close(),
  };
}

/** What came of calls under load. */
export interface Load {
  /** How many calls each port answered so far. */
  readonly answered: ReadonlyMap<string, number>;
  readonly failed: readonly grpc.ServiceError[];
  /** Resolves when so many more calls were answered. */
  more(count: number): Promise<void>;
  /** Resolves when the last of the calls is over. */
  stop(): Promise<void>;
}

/** Calls without a pause, `workers` at a time. */
export function load(client: Caller, workers: number): Load {
  const answered = new Map<string, number>();
  const failed: grpc.ServiceError[] = [];
  let count = 0;
  let over = false;
  const waiting: { readonly at: number; readonly done: () => void }[] = [];
  const work = async (): Promise<void> => {
    while (!over) {
      try {
        const port = await client.call();
        answered.set(port, (answered.get(port) ?? 0) + 1);
        count++;
        while ((waiting[0]?.at ?? Number.POSITIVE_INFINITY) <= count) waiting.shift()?.done();
      } catch (error) {
        failed.push(error as grpc.ServiceError);
        // Failing at once again and again is no load.
        await new Promise((done) => setTimeout(done, 5));
      }
    }
  };
  const running = Array.from({ length: workers }, work);
  return {
    answered,
    failed,
    more: (more) => new Promise((done) => waiting.push({ at: count + more, done })),
    async stop() {
      over = true;
      await Promise.all(running);
    },
  };
}
