"""The two ways to the management of keys: a running gateway, or the store on this machine.

Both take the same requests and give the same answers, those of the HTTP API, so that a command need
not know which one it has.
"""

from __future__ import annotations

import http.client
import ssl
from http import HTTPStatus
from typing import Any, Final, NoReturn, Protocol, TypeVar

import msgspec
from msgspec import Struct

from open_mcp_gateway.errors import InvalidConfig, Problem
from open_mcp_gateway.outbound.endpoint import BadUrl, Endpoint, parse

EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2

_ANSWER_WITHIN_S: Final = 60.0
_MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
_MAX_QUOTED_CHARS: Final = 500

Form = TypeVar("Form")


class Failed(Exception):
    """A command that did not do what it was asked to; the text is one line, without a secret."""

    def __init__(self, text: str, exit_code: int = EXIT_REFUSED) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Answer(Struct, frozen=True):
    """What came back; may hold a new secret, so it is not shown as such."""

    status: int
    body: bytes
    reason: str | None = None
    """Why a key of ours does not open, if that is so."""

    def __repr__(self) -> str:
        return f"<Answer {self.status}>"


class Way(Protocol):
    """Takes requests of the management API."""

    advice: str
    """What to do where the key or its rights do not suffice."""

    def send(
        self, method: str, target: str, body: bytes | None = None, *, rev: str | None = None
    ) -> Answer:
        """The answer, a refusal included; ``rev`` becomes ``If-Match``. Raises Failed."""


class GatewayWay:
    """Over HTTP, with ``key`` if there is one.

    Raises, when it is made:
        InvalidConfig: ``url`` is not one.
    """

    def __init__(self, url: str, key: str | None, *, variable: str) -> None:
        try:
            self._endpoint = parse(url)
        except BadUrl as error:
            raise InvalidConfig([Problem("--gateway", str(error))]) from error
        self._key = key
        mend = "set {} to one of its keys" if key is None else "check the key in {}"
        self.advice = mend.format(variable)

    def send(
        self, method: str, target: str, body: bytes | None = None, *, rev: str | None = None
    ) -> Answer:
        """See ``Way``."""
        headers = {"Accept": "application/json"}
        if self._key is not None:
            headers["X-API-Key"] = self._key
        if self._endpoint.basic is not None:
            headers["Authorization"] = f"Basic {self._endpoint.basic.decode('ascii')}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        if rev is not None:
            headers["If-Match"] = f'"{rev}"'
        connection = _connection(self._endpoint)
        path = self._endpoint.target.partition("?")[0].rstrip("/") + target
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            data = response.read(_MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            self._unreached(error)
        finally:
            connection.close()
        return Answer(response.status, data, response.getheader("X-Auth-Reason"))

    def _unreached(self, error: Exception) -> NoReturn:
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Failed(
            f"the gateway at {self._endpoint.origin} cannot be reached: {plain(cause)}; "
            "check --gateway, and that it runs"
        ) from None


def _connection(endpoint: Endpoint) -> http.client.HTTPConnection:
    host, port = endpoint.origin.host, endpoint.origin.port
    if endpoint.origin.scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=_ANSWER_WITHIN_S)
    context = ssl.create_default_context()
    return http.client.HTTPSConnection(host, port, timeout=_ANSWER_WITHIN_S, context=context)


def content_of(way: Way, answer: Answer, *members: str) -> dict[str, Any]:
    """What a request that succeeded was answered with: an object with these members at least.

    Raises:
        Failed: it did not succeed.
    """
    if not 200 <= answer.status < 300:
        raise Failed(_words(way, answer), EXIT_USAGE if answer.status == 400 else EXIT_REFUSED)
    try:
        found = msgspec.json.decode(answer.body, type=dict[str, Any])
    except msgspec.DecodeError:
        found = {}
    if not found or not found.keys() >= {*members}:
        raise Failed("what answered is no gateway; check --gateway")
    return found


class _Refusal(Struct):
    """As much of an error body as is told."""

    message: str
    code: str = ""
    excess: list[str] = []


_OWN_WORDS: Final = {
    "has_children": "keys that were made with it are live; revoke those too with --cascade",
}
"""In place of those that speak of query strings."""

_MENDS: Final = {
    "last_admin": "make another one first with `keys create --role admin`, or name the "
    "configuration with --config if that has one",
    "name_taken": "choose another name, or revoke that key",
    "hash_taken": "one secret is one key: make another secret",
    "id_taken": "choose another id",
    "has_keys": "`keys list --tenant ID` shows them",
    "read_only": "change it there",
    "outdated": "look at it again, then leave --rev out or give the new one",
    "revoked": "make a new one",
    "permission_denied": "use a key whose role grants it",
    "store_not_configured": "set it for that gateway, make the store with `keys init`, and start "
    "the gateway again",
    "auth_disabled": "set api_key or auth.store for that gateway and start it again",
}


def _words(way: Way, answer: Answer) -> str:
    """One line for a refusal: what is wrong and, where that is known, how to mend it."""
    try:
        said = msgspec.json.decode(answer.body, type=_Refusal)
    except msgspec.DecodeError:
        phrase = _phrase(answer.status)
        return f"what answered with {answer.status} {phrase} is no gateway; check --gateway"
    text = _OWN_WORDS.get(said.code, said.message)
    if said.excess:
        text += f" ({', '.join(said.excess)})"
    if answer.reason is not None:
        text += f" ({answer.reason})"
    mend = _MENDS.get(said.code)
    if mend is None and answer.status in {401, 403} and not said.code:
        mend = way.advice
    line = plain(text)[:_MAX_QUOTED_CHARS].rstrip(".")
    return line if mend is None else f"{line}; {mend}"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def plain(text: str) -> str:
    """``text`` on one line and without what a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
