"""Load on one target: wrk for the figures, and a slow exact client that reads every answer."""

from __future__ import annotations

import http.client
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from bench.faces import Envelope, Face
from bench.parts import BUILD, LOAD_CORE, cpu_seconds, pinned, program

TEXT = "how much wood would a woodchuck chuck"

# Figures as one line of JSON. The length of all answers shows wrong ones without reading each,
# which would make the load the bottleneck.
SCRIPT = """\
wrk.method = "POST"
wrk.path = "{path}"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "application/json, text/event-stream"
{headers}
wrk.body = [[{body}]]
{request}
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nfigures {{"requests":%d,"bytes":%d,"seconds":%f,"p50_us":%d,"p99_us":%d,"errors":%d}}\\n',
    summary.requests, summary.bytes, summary.duration / 1e6,
    latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


# Costs the load time, so only where ids must differ. Always as long as the one in the body.
UNIQUE_IDS = """
local number, before, after = {first}, [[{before}]], [[{after}]]
function request()
  number = number + 1
  return wrk.format(nil, nil, nil, before .. number .. after)
end
"""
FIRST_ID = 100_000_000


class Target(NamedTuple):
    """Something that answers ``tools/call``."""

    name: str
    port: int
    pid: int | None = None
    """The process whose processor time counts; None where nothing stands in between."""

    server_id: str = "http"
    key: str | None = None
    face: Face | None = None
    """None: the envelope."""

    @property
    def way(self) -> Face:
        return self.face or Envelope(self.server_id)

    @property
    def headers(self) -> dict[str, str]:
        return self.way.headers | ({"X-API-Key": self.key} if self.key else {})

    def body(self, id_: int | str, text: str) -> str:
        """One tools/call, about 150 bytes."""
        return json.dumps(self.way.call(id_, text), separators=(",", ":"))


class Round(NamedTuple):
    """What one run of wrk measured."""

    rps: float
    p50_us: float
    p99_us: float
    errors: int
    """Requests without an answer or with another status than 2xx."""

    answer_bytes: float
    """Mean length of an answer, headers included."""

    cpu_us: float
    """Processor time of the target for each request. Steadier than the rest on a busy machine."""


def run_wrk(target: Target, connections: int, seconds: int) -> Round:
    """Load ``target`` over ``connections`` keep-alive connections from the other core."""
    way = target.way
    headers = "\n".join(
        f'wrk.headers["{name}"] = "{value}"' for name, value in target.headers.items()
    )
    first = FIRST_ID if way.unique_ids else 1
    body, request = target.body(first, TEXT), ""
    if way.unique_ids:
        before, _, after = body.partition(str(first))
        request = UNIQUE_IDS.format(first=first, before=before, after=after)
    script = BUILD / f"{target.name}.lua"
    script.touch(mode=0o600)
    script.write_text(SCRIPT.format(path=way.path, headers=headers, body=body, request=request))
    options = ["--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
    url = f"http://127.0.0.1:{target.port}{way.path}"
    command = pinned(LOAD_CORE, program("wrk"), *options, "--script", str(script), url)
    before_s = cpu_seconds(target.pid)
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    spent_s = cpu_seconds(target.pid) - before_s
    figures = json.loads(finished.stdout.rpartition("figures ")[2])
    requests = max(figures["requests"], 1)
    return Round(
        rps=figures["requests"] / figures["seconds"],
        p50_us=figures["p50_us"],
        p99_us=figures["p99_us"],
        errors=figures["errors"],
        answer_bytes=figures["bytes"] / requests,
        cpu_us=spent_s * 1e6 / requests,
    )


def answer(connection: http.client.HTTPConnection, target: Target, body: str) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    connection.request("POST", target.way.path, body, headers | target.headers)
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise RuntimeError(f"{target.name} answered {response.status}: {content[:300]!r}")
    message: dict[str, Any] = json.loads(content)
    return message


def count_wrong(target: Target, client: int, calls: int) -> int:
    """Calls of one client, each with an id and a text of its own, that got another's answer."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=30)
    wrong = 0
    for number in range(calls):
        id_, text = f"{client}-{number}", f"{TEXT} {client} {number}"
        message = answer(connection, target, target.body(id_, text))
        given = message.get("result", {}).get("content", [{}])[0].get("text", "")
        wrong += message.get("id") != id_ or not given.startswith(text + " ")
    connection.close()
    return wrong


def wrong_answers(target: Target, clients: int, calls: int) -> int:
    """How many of ``clients`` times ``calls`` concurrent calls got a wrong answer."""
    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(lambda client: count_wrong(target, client, calls), range(clients)))
