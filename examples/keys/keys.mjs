// One key from beginning to end: made for one tool, used, refused another tool, revoked.
//
//   MCP_GATEWAY_API_KEY=… GATEWAY=http://127.0.0.1:4444 node examples/keys/keys.mjs
//
// The key has to have `keys:write`, and the gateway a store and the server `demo`. Node.js 22.
import { randomUUID } from "node:crypto";
import { env, exit } from "node:process";

const gateway = env.GATEWAY ?? "http://127.0.0.1:4444";
const admin = env.MCP_GATEWAY_API_KEY;

/** Status, the reason for a refused key, and body. */
async function ask(key, method, path, body) {
  const answer = await fetch(gateway + path, {
    method,
    headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const reason = answer.headers.get("X-Auth-Reason");
  return { status: answer.status, reason, body: await answer.json() };
}

/** The answer of one tool of the server `demo`. */
async function call(key, name, args) {
  const params = { name, arguments: args };
  const message = { server_id: "demo", id: 1, method: "tools/call", params };
  return (await ask(key, "POST", "/mcp", message)).body;
}

const made = await ask(admin, "POST", "/admin/keys", {
  name: `agent-${randomUUID()}`,
  scope: { tools: ["demo/add"] },
  expires_in: "10m",
});
if (made.status !== 201) {
  console.error(made.status, made.body.message);
  exit(1);
}
const key = made.body.secret; // in this answer and in no other
console.log("made", made.body.id);

const sum = await call(key, "add", { a: 2, b: 3 });
console.log("demo/add:", sum.result.content[0].text);
const refused = await call(key, "echo", { text: "hello" });
console.log("demo/echo:", refused.error.message);

const question = { action: "mcp:call", server: "demo", tool: "echo" };
const why = (await ask(key, "POST", "/auth/explain", question)).body;
console.log("why:", why.code);
for (const change of why.smallest_fix) {
  console.log("what would help:", change.path, change.value);
}

await ask(admin, "DELETE", `/admin/keys/${made.body.id}?reason=example`);
const after = await ask(key, "GET", "/whoami");
console.log("revoked:", after.status, after.reason);
