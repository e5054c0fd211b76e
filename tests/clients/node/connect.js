"use strict";
// Connects to a target through the proxy with the npm package ssh2.
const fs = require("fs");
const { Client } = require("ssh2");

function address(text) {
  const colon = text.lastIndexOf(":");
  return [text.slice(0, colon), Number(text.slice(colon + 1))];
}

function call(object, method, ...args) {
  return new Promise((resolve, reject) => {
    object[method](...args, (error, value) => (error ? reject(error) : resolve(value)));
  });
}

function login(name, options) {
  return new Promise((resolve, reject) => {
    const client = new Client();
    client.on("handshake", () => console.error(`${name}: new keys`));
    client.on("ready", () => resolve(client)).on("error", reject);
    client.connect(options);
  });
}

// The outer and the inner connection.
async function connect(proxy, user, key, target, name) {
  const privateKey = fs.readFileSync(key);
  const [host, port] = address(proxy);
  const outer = await login("outer", { privateKey, host, port, username: user });
  const sock = await call(outer, "forwardOut", "127.0.0.1", 0, ...address(target));
  return [outer, await login("inner", { privateKey, sock, username: name })];
}

module.exports = { address, call, connect };
