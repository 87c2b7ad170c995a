// A program that calls a gRPC server once and closes nothing: TARGET AGENT. It ends by itself.
import grpc from "@grpc/grpc-js";
import { registerResolvers } from "../../src/grpc.ts";
import { caller } from "./grpc.ts";

const [target = "", agent = ""] = process.argv.slice(2);
registerResolvers(grpc, { agent });
process.stdout.write(await caller(target).call());
