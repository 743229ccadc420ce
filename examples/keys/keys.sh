#!/bin/sh
# One key from beginning to end: made for one tool, used, refused another tool, revoked.
#
#   MCP_GATEWAY_API_KEY=… GATEWAY=http://127.0.0.1:4444 examples/keys/keys.sh
#
# The key has to have `keys:write`, and the gateway a store and the server `demo`. Needs curl.
set -eu
gateway=${GATEWAY:-http://127.0.0.1:4444}
admin=${MCP_GATEWAY_API_KEY:?a key that may make keys}

# ask KEY METHOD PATH [BODY]: prints the status, the reason for a refused key, and the body.
# The key goes by standard input: everybody on a machine can read what stands on command lines.
ask() {
  printf 'header = "Authorization: Bearer %s"\n' "$1" |
    curl -sS -K - -X "$2" -H 'Content-Type: application/json' ${4:+-d "$4"} \
      -w '\n%{http_code} %header{x-auth-reason}\n' "$gateway$3"
}

# member NAME: the first string of that name in the JSON on standard input.
member() {
  grep -o "\"$1\":\"[^\"]*\"" | head -n 1 | cut -d '"' -f 4
}

call() {
  ask "$1" POST /mcp "{\"server_id\":\"demo\",\"id\":1,\"method\":\"tools/call\",\"params\":$2}"
}

made=$(ask "$admin" POST /admin/keys \
  "{\"name\":\"agent-$$\",\"scope\":{\"tools\":[\"demo/add\"]},\"expires_in\":\"10m\"}")
key=$(printf '%s' "$made" | member secret) # in this answer and in no other
[ -n "$key" ] || { printf '%s\n' "$made" >&2; exit 1; }
id=$(printf '%s' "$made" | member id)
echo "made $id"

echo "demo/add: $(call "$key" '{"name":"add","arguments":{"a":2,"b":3}}' | member text)"
echo "demo/echo: $(call "$key" '{"name":"echo","arguments":{"text":"hello"}}' | member message)"

why=$(ask "$key" POST /auth/explain '{"action":"mcp:call","server":"demo","tool":"echo"}')
echo "why: $(printf '%s' "$why" | member code)"
echo "what would help: $(printf '%s' "$why" | grep -o '"smallest_fix":.*]' | member path) $(
  printf '%s' "$why" | member value)"

ask "$admin" DELETE "/admin/keys/$id?reason=example" >/dev/null
echo "revoked: $(ask "$key" GET /whoami | tail -n 1)"
