// A program with @grpc/grpc-js that knows nothing of Trilith: asks a service once, and prints what it says.
import grpc from "@grpc/grpc-js";

const text = (value) => Buffer.from(value);
const words = {
  requestSerialize: text,
  requestDeserialize: String,
  responseSerialize: text,
  responseDeserialize: String,
};
const who = { who: { path: "/test.Who/who", requestStream: false, responseStream: false, ...words } };
const Who = grpc.makeGenericClientConstructor(who, "Who");
const client = new Who("rpc.service.consul:50051", grpc.credentials.createInsecure());
client.who("grpc", { deadline: Date.now() + 10_000 }, (error, answer) => {
  client.close();
  process.stdout.write(`${JSON.stringify(error === null ? answer : String(error))}\n`);
});
