"""Keys and tenants of the store, managed through a gateway as an administrator does it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from tests.rawhttp import Answer, request
from tests.wire.faces import JSON, KEY

PROD: Final = ["prod"]

Ask = Callable[[bytes, bytes], Answer]
"""Sends a raw request, whose method is the second argument."""


class Made(Struct, frozen=True):
    """A key that was made, with its secret."""

    id: str
    secret: bytes


class Office:
    """Administers through ``ask``, with the key of an admin."""

    def __init__(self, ask: Ask, key: bytes = KEY) -> None:
        self._ask = ask
        self._key = key

    def send(self, method: str, path: str, body: object = None) -> Answer:
        raw = b"" if body is None else json.dumps(body).encode()
        verb, headers = method.encode(), ((b"X-API-Key", self._key), JSON)
        return self._ask(request(path.encode(), *headers, method=verb, body=raw), verb)

    def done(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = self.send(method, path, body)
        assert answer.status in {200, 201}, answer
        told: dict[str, Any] = json.loads(answer.body)
        return told

    def key(self, name: str, **members: Any) -> Made:
        told = self.done("POST", "/admin/keys", {"name": name, "role": "caller", **members})
        return Made(told["id"], told["secret"].encode())

    def patch(self, key: Made, **members: Any) -> dict[str, Any]:
        return self.done("PATCH", f"/admin/keys/{key.id}", members)

    def revoke(self, key: Made) -> dict[str, Any]:
        return self.done("DELETE", f"/admin/keys/{key.id}")

    def tenant(self, name: str, namespaces: list[str]) -> dict[str, Any]:
        return self.done("POST", "/admin/tenants", {"id": name, "namespaces": namespaces})

    def change_tenant(self, name: str, **members: Any) -> dict[str, Any]:
        return self.done("PATCH", f"/admin/tenants/{name}", members)


def opens(ask: Ask, key: Made) -> Answer:
    """The answer to a request that any key may make."""
    return ask(request(b"/whoami", (b"X-API-Key", key.secret)), b"GET")
