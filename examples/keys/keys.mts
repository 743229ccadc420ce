// One key from beginning to end: made for one tool, used, refused another tool, revoked.
//
//   MCP_GATEWAY_API_KEY=… GATEWAY=http://127.0.0.1:4444 node --experimental-strip-types \
//     examples/keys/keys.mts
//
// The key has to have `keys:write`, and the gateway a store and the server `demo`. Node.js 22, which
// from 22.18 on needs no flag for TypeScript.
import { randomUUID } from "node:crypto";
import { env, exit } from "node:process";

interface Refusal {
  error: string;
  message: string;
  code?: string;
}

interface MadeKey {
  id: string;
  /** In the answer that makes the key, and in no other. */
  secret: string;
  status: "scheduled" | "active" | "disabled" | "expired" | "revoked";
  expires_at: string | null;
}

interface Explanation {
  allowed: boolean;
  code: "allowed" | "not_found" | "permission_denied" | "not_in_scope" | "key_not_live";
  trail?: { check: string; subject: string; ok: boolean; have?: string[] }[];
  smallest_fix?: { op: string; path: string; value?: unknown }[];
}

interface ToolAnswer {
  result?: { content: { type: string; text?: string }[] };
  error?: { code: number; message: string };
}

interface Answer<Body> {
  status: number;
  /** Why a key of the gateway does not open. */
  reason: string | null;
  body: Body;
}

class Client {
  readonly gateway: string;
  readonly key: string;

  constructor(gateway: string, key: string) {
    this.gateway = gateway;
    this.key = key;
  }

  async ask<Body>(method: string, path: string, body?: unknown): Promise<Answer<Body>> {
    const answer = await fetch(this.gateway + path, {
      method,
      headers: { Authorization: `Bearer ${this.key}`, "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const reason = answer.headers.get("X-Auth-Reason");
    return { status: answer.status, reason, body: (await answer.json()) as Body };
  }

  async call(server: string, name: string, args: object): Promise<ToolAnswer> {
    const params = { name, arguments: args };
    const message = { server_id: server, id: 1, method: "tools/call", params };
    return (await this.ask<ToolAnswer>("POST", "/mcp", message)).body;
  }
}

const gateway = env.GATEWAY ?? "http://127.0.0.1:4444";
const admin = new Client(gateway, env.MCP_GATEWAY_API_KEY ?? "");

const made = await admin.ask<MadeKey & Partial<Refusal>>("POST", "/admin/keys", {
  name: `agent-${randomUUID()}`,
  scope: { tools: ["demo/add"] },
  expires_in: "10m",
});
if (made.status !== 201) {
  console.error(made.status, made.body.message);
  exit(1);
}
const agent = new Client(gateway, made.body.secret);
console.log("made", made.body.id);

const sum = await agent.call("demo", "add", { a: 2, b: 3 });
console.log("demo/add:", sum.result?.content[0]?.text);
const refused = await agent.call("demo", "echo", { text: "hello" });
console.log("demo/echo:", refused.error?.message);

const question = { action: "mcp:call", server: "demo", tool: "echo" };
const why = (await agent.ask<Explanation>("POST", "/auth/explain", question)).body;
console.log("why:", why.code);
for (const change of why.smallest_fix ?? []) {
  console.log("what would help:", change.path, change.value);
}

await admin.ask("DELETE", `/admin/keys/${made.body.id}?reason=example`);
const after = await agent.ask<Refusal>("GET", "/whoami");
console.log("revoked:", after.status, after.reason);
