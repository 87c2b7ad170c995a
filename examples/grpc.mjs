// A gRPC server that registers itself, and a client that finds it by name and follows it: run "trilith agent -dev" first, then "node examples/grpc.mjs".
import grpc from "@grpc/grpc-js";
import { advertise } from "trilith";
import { registerResolvers } from "trilith/grpc";

// A service without a proto file: one method, texts both ways.
const serialize = (text) => Buffer.from(text);
const deserialize = (bytes) => bytes.toString();
const service = {
  hello: {
    path: "/Greeter/Hello",
    requestStream: false,
    responseStream: false,
    requestSerialize: serialize,
    requestDeserialize: deserialize,
    responseSerialize: serialize,
    responseDeserialize: deserialize,
  },
};

const server = new grpc.Server();
server.addService(service, { hello: ({ request }, answer) => answer(null, `hello ${request}`) });
const port = await new Promise((bound, failed) =>
  server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) =>
    error ? failed(error) : bound(port),
  ),
);
const advertised = await advertise({ name: "greeter", port, address: "127.0.0.1", labels: { env: "prod" } });

// Once per program; from then on every channel knows trilith:// and minidisc://.
registerResolvers(grpc);
const Greeter = grpc.makeGenericClientConstructor(service, "Greeter");
const client = new Greeter("trilith://greeter?env=prod", grpc.credentials.createInsecure());
const answer = await new Promise((done, failed) =>
  client.hello("gRPC", { deadline: Date.now() + 10_000 }, (error, text) => (error ? failed(error) : done(text))),
);
console.log(answer);

client.close();
await advertised.stop();
server.tryShutdown(() => {});
