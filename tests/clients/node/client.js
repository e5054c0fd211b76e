"use strict";
// Talks to a target through the proxy with the npm package ssh2, and prints what it got.
//   node client.js PROXY USER KEY TARGET LOGIN DIRECTORY FORWARD
const { address, call, connect } = require("./connect");

const [proxy, user, key, target, login, directory, forward] = process.argv.slice(2);

function finished(stream) {
  return new Promise((resolve) => {
    let out = "", err = "", status = null;
    stream.on("data", (data) => { out += data; });
    stream.stderr.on("data", (data) => { err += data; });
    stream.on("exit", (code) => { status = code; });
    stream.on("close", () => resolve({ out, err, status }));
  });
}

async function main() {
  const [outer, client] = await connect(proxy, user, key, target, login);
  const command = await call(client, "exec", "cat; echo $LC_NODE; echo err >&2; exit 3", { env: { LC_NODE: "set" } });
  command.end("typed\n");
  const exec = await finished(command);
  const shell = await call(client, "shell", { term: "xterm", rows: 30, cols: 90, modes: { ECHO: 0 } });
  shell.write("stty size; exit 4\n");
  const pty = await finished(shell);
  const sftp = await call(client, "sftp");
  const contents = Buffer.alloc(1 << 20, "0123456789abcdef");
  await call(sftp, "writeFile", `${directory}/there`, contents);
  const copied = contents.equals(await call(sftp, "readFile", `${directory}/there`));
  const tunnel = await call(client, "forwardOut", "127.0.0.1", 0, ...address(forward));
  const greeting = await new Promise((resolve) => tunnel.once("data", (data) => resolve(data.toString().slice(0, 8))));
  tunnel.destroy();
  console.log(JSON.stringify({ exec, pty, copied, greeting }));
  client.end();
  outer.end();
}

main().catch((error) => { console.error(error); process.exit(1); });
