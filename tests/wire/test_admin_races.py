"""A hundred at once about one key: one winner, nothing lost, nothing made twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from tests.rawhttp import Answer, request
from tests.wire.faces import JSON, KEY, Face, face, new_store

MANY: Final = 100


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Face]:
    with new_store(tmp_path) as store, face("hot", store=store) as found:
        yield found


def ask(
    front: Face, method: str, path: str, body: object = None, *headers: tuple[bytes, bytes]
) -> Answer:
    raw = b"" if body is None else json.dumps(body).encode()
    verb = method.encode()
    whole = request(path.encode(), (b"X-API-Key", KEY), JSON, *headers, method=verb, body=raw)
    return front.ask(whole, verb)


def at_once(work: Callable[[int], Answer]) -> list[Answer]:
    with ThreadPoolExecutor(25) as pool:
        return list(pool.map(work, range(MANY)))


def statuses(answers: list[Answer]) -> Counter[int]:
    return Counter(one.status for one in answers)


def made(front: Face, **members: Any) -> str:
    answer = ask(front, "POST", "/admin/keys", {"name": "k", **members})
    assert answer.status == 201
    return f"/admin/keys/{json.loads(answer.body)['id']}"


def shown(front: Face, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask(front, "GET", path).body)
    return found


def test_of_those_who_saw_the_same_revision_one_wins(front: Face) -> None:
    where = made(front)
    seen = (b"If-Match", b'"%b"' % shown(front, where)["rev"].encode())
    answers = at_once(lambda n: ask(front, "PATCH", where, {"name": f"n{n}"}, seen))
    assert statuses(answers) == {200: 1, 412: MANY - 1}
    (winner,) = (json.loads(one.body) for one in answers if one.status == 200)
    assert shown(front, where) == winner


def test_no_change_is_lost(front: Face) -> None:
    """Each changes another member, from whatever there is when its turn has come."""
    where = made(front)
    answers = at_once(
        lambda n: ask(front, "PATCH", where, {"metadata": {f"m{n % 50}": f"{n // 50}"}})
    )
    assert statuses(answers) == {200: MANY}
    tags = {json.loads(one.body)["rev"] for one in answers}
    assert len(tags) == MANY
    after = shown(front, where)
    assert set(after["metadata"]) == {f"m{n}" for n in range(50)}
    assert after["rev"] in tags


def test_a_key_is_revoked_once(front: Face) -> None:
    where = made(front)
    answers = at_once(lambda n: ask(front, "DELETE", f"{where}?reason=r{n}"))
    assert statuses(answers) == {200: MANY}
    # All are told of the same end.
    assert len({one.body for one in answers}) == 1
    assert shown(front, where)["status"] == "revoked"


def test_after_a_revoke_among_them_no_change_takes(front: Face) -> None:
    where = made(front)

    def work(number: int) -> Answer:
        if number % 2:
            return ask(front, "DELETE", where)
        return ask(front, "PATCH", where, {"disabled": False, "expires_at": None})

    answers = at_once(work)
    assert set(statuses(answers)) <= {200, 409}
    assert shown(front, where)["status"] == "revoked"
    assert ask(front, "PATCH", where, {"disabled": False}).status == 409


def test_a_name_is_given_once(front: Face) -> None:
    body = {"name": "wanted", "role": "viewer"}
    answers = at_once(lambda _: ask(front, "POST", "/admin/keys", body))
    assert statuses(answers) == {201: 1, 409: MANY - 1}
    listed = json.loads(ask(front, "GET", "/admin/keys?name=wanted").body)["data"]
    assert len(listed) == 1


def test_an_idempotency_key_is_one_requests(front: Face) -> None:
    """Ten different requests under one of them: one is done, and its own repeats are told so."""
    once = (b"Idempotency-Key", b"same")
    answers = at_once(lambda n: ask(front, "POST", "/admin/keys", {"name": f"n{n % 10}"}, once))
    assert statuses(answers) == {201: 1, 200: MANY // 10 - 1, 409: MANY - MANY // 10}
    assert len(json.loads(ask(front, "GET", "/admin/keys?source=api").body)["data"]) == 1
    told = [json.loads(one.body) for one in answers if one.status in {200, 201}]
    assert len({one["id"] for one in told}) == 1
    assert len([one for one in told if one["secret"] is not None]) == 1


def test_a_hash_is_one_keys(front: Face) -> None:
    body = {"hash": "sha256:" + "ab" * 32}
    answers = at_once(lambda n: ask(front, "POST", "/admin/keys", {**body, "name": f"n{n}"}))
    assert statuses(answers) == {201: 1, 409: MANY - 1}


def test_the_last_administrators_do_not_revoke_each_other(tmp_path: Path) -> None:
    """None of them is of the configuration: however the two end, one stays."""
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with new_store(folder) as store, face("hot", store=store) as front:
            answers = [
                ask(front, "POST", "/admin/keys", {"name": name, "role": "admin", "tenant": None})
                for name in "ab"
            ]
        found = [json.loads(one.body) for one in answers]
        with new_store(folder) as store, face("hot", store=store, keys=()) as front:

            def revoke(pair: tuple[str, str], front: Face = front) -> int:
                secret, path = pair
                key = (b"X-API-Key", secret.encode())
                raw = request(f"/admin/keys/{path}".encode(), key, method=b"DELETE")
                return front.ask(raw, b"DELETE").status

            pairs = [(found[0]["secret"], found[1]["id"]), (found[1]["secret"], found[0]["id"])]
            with ThreadPoolExecutor(2) as pool:
                done = sorted(pool.map(revoke, pairs))
            assert done in ([200, 403], [200, 409]), done


def test_a_tenant_is_made_once(front: Face) -> None:
    body = {"id": "one", "namespaces": []}
    answers = at_once(lambda _: ask(front, "POST", "/admin/tenants", body))
    assert statuses(answers) == {201: 1, 409: MANY - 1}
