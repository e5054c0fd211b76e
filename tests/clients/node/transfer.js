"use strict";
// Prints the output of the command DOWN, then that of the command UP, which gets the contents of FILE.
//   node transfer.js PROXY USER KEY TARGET LOGIN FILE DOWN UP
// The library never renews keys by itself.
const fs = require("fs");
const { finished } = require("stream/promises");
const { call, connect } = require("./connect");

const [proxy, user, key, target, login, file, down, up] = process.argv.slice(2);

async function run(client, command, input) {
  const channel = await call(client, "exec", command);
  input.pipe(channel);
  channel.pipe(process.stdout, { end: false });
  await finished(channel);
}

async function main() {
  const [outer, client] = await connect(proxy, user, key, target, login);
  await run(client, down, fs.createReadStream("/dev/null"));
  await run(client, up, fs.createReadStream(file));
  client.end();
  outer.end();
}

main().catch((error) => { console.error(error); process.exit(1); });
