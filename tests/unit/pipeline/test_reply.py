"""Failures as replies."""

import json

import pytest

from open_mcp_gateway.errors import Busy, NotFound, UpstreamTimeout
from open_mcp_gateway.pipeline.reply import Reply, retry_after, rpc_failure


def test_a_failure_carries_the_id_of_its_request() -> None:
    error = NotFound("no such server")
    error.request_id = b'"x"'
    reply = rpc_failure(error, "r-1")
    assert (reply.status, reply.headers) == (404, ())
    message = json.loads(reply.body)
    assert message["id"] == "x"
    assert message["error"]["data"] == {"code": "not_found", "request_id": "r-1"}


def test_a_failure_without_a_known_id_carries_null() -> None:
    assert json.loads(rpc_failure(UpstreamTimeout("late"), "r-1").body)["id"] is None


@pytest.mark.parametrize(
    ("seconds", "header"), [(None, ()), (0, b"1"), (1, b"1"), (7, b"7"), (-3, b"1")]
)
def test_when_to_come_again(seconds: int | None, header: bytes | tuple[()]) -> None:
    expected = ((b"retry-after", header),) if header else ()
    assert retry_after(Busy("full", retry_after_s=seconds)) == expected
    assert rpc_failure(Busy("full", retry_after_s=seconds), "r").headers == expected


def test_a_bare_reply_is_empty() -> None:
    assert Reply(202) == Reply(202, b"", ())
