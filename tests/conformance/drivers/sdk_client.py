"""A client on PyPI mcp 2 that does what a client scenario of the suite waits for: ``URL``.

The scenario, the revision and what else there is to know come in the environment, as the suite
puts them there.
"""

# mypy: ignore-errors
# Runs on a package of an environment of its own.

import asyncio
import json
import os
import sys

import mcp_types as types
from mcp.client import Client
from mcp_types.version import MODERN_PROTOCOL_VERSIONS


async def fill_in(_context, params):
    """Accept a form with its defaults, and with yes where there is none."""
    fields = getattr(params, "requested_schema", {}).get("properties", {})
    content = {name: field.get("default", True) for name, field in fields.items()}
    return types.ElicitResult(action="accept", content=content)


async def speak(_context, _params):
    content = types.TextContent(type="text", text="Certainly.")
    return types.CreateMessageResult(role="assistant", content=content, model="test-model")


async def list_roots(_context):
    return types.ListRootsResult(roots=[])


async def list_only(client):
    await client.list_tools()


async def add(client):
    await client.list_tools()
    await client.call_tool("add_numbers", {"a": 5, "b": 3})


async def call_all(client):
    for tool in (await client.list_tools()).tools:
        await client.call_tool(tool.name, {})


async def use_everything(client):
    await call_all(client)
    for resource in (await client.list_resources()).resources:
        await client.read_resource(str(resource.uri))
    for prompt in (await client.list_prompts()).prompts:
        await client.get_prompt(prompt.name)


async def call_as_told(client):
    await client.list_tools()
    for call in json.loads(os.environ["MCP_CONFORMANCE_CONTEXT"])["toolCalls"]:
        await client.call_tool(call["name"], call["arguments"])


async def send_back_schema(client):
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    schema = tools["json_schema_2020_12_tool"].input_schema
    await client.call_tool("json_schema_echo", {"schema": schema})


SCENARIOS = {
    "initialize": list_only,
    "tools_call": add,
    "elicitation-sep1034-client-defaults": call_all,
    "sse-retry": call_all,
    "request-metadata": list_only,
    "sep-2322-client-request-state": call_all,
    "http-standard-headers": use_everything,
    "http-custom-headers": call_as_told,
    "json-schema-ref-no-deref": list_only,
    "json-schema-2020-12-preservation": send_back_schema,
}


async def main(url):
    version = os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"]
    mode = version if version in MODERN_PROTOCOL_VERSIONS else "legacy"
    client = Client(
        url,
        mode=mode,
        elicitation_callback=fill_in,
        sampling_callback=speak,
        list_roots_callback=list_roots,
    )
    async with client:
        await SCENARIOS[os.environ["MCP_CONFORMANCE_SCENARIO"]](client)


asyncio.run(main(sys.argv[1]))
