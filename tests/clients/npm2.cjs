// npm @modelcontextprotocol/client 2. What goes in and comes out stands in README.md.
"use strict";

const { readFileSync } = require("node:fs");
const { Client, StreamableHTTPClientTransport } = require("@modelcontextprotocol/client");
const { StdioClientTransport } = require("@modelcontextprotocol/client/stdio");

const INFO = { name: "test", version: "1" };

function transportTo(target) {
  if (target.url) {
    const requestInit = { headers: target.headers };
    return new StreamableHTTPClientTransport(new URL(target.url), { requestInit });
  }
  const [command, ...args] = target.command;
  return new StdioClientTransport({ command, args, env: target.env, stderr: "ignore" });
}

async function look(mode, target) {
  const negotiation = ["legacy", "auto"].includes(mode) ? mode : { pin: mode };
  const client = new Client(INFO, { versionNegotiation: { mode: negotiation } });
  await client.connect(transportTo(target));
  const { tools } = await client.listTools();
  const called = await client.callTool({ name: target.tool, arguments: target.arguments });
  let error;
  try {
    const refused = await client.callTool({ name: "no-such-tool", arguments: {} });
    error = refused.content[0].text;
  } catch (raised) {
    error = raised.message;
  }
  const version = client.getNegotiatedProtocolVersion();
  if (version < "2026") await client.ping();
  const seen = {
    version,
    server: client.getServerVersion()?.name ?? null,
    tools: tools.map((tool) => tool.name),
    text: called.content[0].text,
    error,
  };
  await client.close();
  return seen;
}

async function main() {
  const { mode, targets } = JSON.parse(readFileSync(0, "utf8"));
  const seen = {};
  await Promise.all(
    Object.entries(targets).map(async ([name, target]) => {
      try {
        seen[name] = await look(mode, target);
      } catch (raised) {
        seen[name] = { failed: String(raised.stack) };
      }
    }),
  );
  process.stdout.write(JSON.stringify(seen));
}

main();
