// Applies a policy to a run and prints the denials that follow, with a client made from the published .proto.
const fs = require("fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [proto, address, run, bundle] = process.argv.slice(2);
const loaded = loader.loadSync(proto, { keepCase: true, longs: String, enums: String, defaults: true });
const { Sentry } = grpc.loadPackageDefinition(loaded).helm_sentry.v1;
const client = new Sentry(address, grpc.credentials.createInsecure());

function fail(error) {
  console.error(error.message);
  process.exit(1);
}

const stream = client.Watch({ run, from_start: true, verdicts: ["DENY"] });
stream.on("error", fail);
stream.on("data", (record) => console.log(JSON.stringify(record)));
client.Apply({ run, bundle: fs.readFileSync(bundle) }, (error, change) => {
  if (error) fail(error);
  client.Get({ run }, (error, shown) => {
    if (error) fail(error);
    console.log(JSON.stringify({ run: shown.id, epoch: change.epoch, policy_name: shown.policy_name }));
  });
});
