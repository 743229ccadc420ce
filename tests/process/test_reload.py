"""Configuration and catalog edited while the gateway runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.process.talk import KEY, Json, Running, odd_server, owned_by, run_gateway, wait_until

NEW_KEY = "test-key-fedcba9876543210"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    servers = [odd_server("echo", id="kept", tags=["old"]), odd_server("echo", id="changed")]
    with run_gateway(tmp_path, servers) as gateway:
        yield gateway


def text_of(*servers: Json) -> str:
    return yaml.safe_dump({"servers": list(servers)})


def ids(running: Running) -> list[str]:
    return [server["id"] for server in running.caller.get("/servers").json]


def _wait_for_ids(running: Running, *expected: str) -> None:
    wait_until(lambda: ids(running) == list(expected), f"{expected} are in force")


def change_config(running: Running, **changes: object) -> None:
    """Set these keys of config.yaml, or take them out where the value is None."""
    path = running.gateway.config_path
    config = yaml.safe_load(path.read_text("utf-8")) | changes
    kept = {name: value for name, value in config.items() if value is not None}
    path.write_text(yaml.safe_dump(kept), "utf-8")


def write_in_place(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


def rename_over(path: Path, text: str) -> None:
    """As editors do it."""
    other = path.with_name(f".{path.name}.new")
    other.write_text(text, "utf-8")
    other.replace(path)


def take_away_and_bring_back(path: Path, text: str) -> None:
    path.rename(path.with_suffix(".bak"))
    path.write_text(text, "utf-8")


@pytest.mark.parametrize("write", [write_in_place, rename_over, take_away_and_bring_back])
def test_a_change_applies_however_it_was_written(
    running: Running, write: Callable[[Path, str], None]
) -> None:
    kept = odd_server("echo", id="kept", tags=["new"])
    write(running.gateway.catalog_path, text_of(kept, odd_server("echo", id="added")))
    wait_until(lambda: ids(running) == ["kept", "added"], "the new catalog is in force")
    assert running.caller.shown("kept")["tags"] == ["new"]
    wait_until(lambda: running.log("reloaded"), "it is in the log")
    line = running.log("reloaded")[-1]
    figures = {name: line[name] for name in ("servers", "added", "removed", "modified")}
    assert figures == {"servers": 2, "added": 1, "removed": 1, "modified": 1}


def test_a_swapped_symlink_applies(tmp_path: Path) -> None:
    """As Kubernetes updates a mounted config map: file -> ..data/file, ..data -> a dated folder."""
    mount = tmp_path / "mount"
    mount.mkdir()

    def publish(name: str, text: str) -> None:
        (mount / name).mkdir()
        (mount / name / "catalog.yaml").write_text(text, "utf-8")
        (mount / "..new").symlink_to(name)
        (mount / "..new").replace(mount / "..data")

    publish("..2026_1", text_of(odd_server("echo", id="first")))
    (mount / "catalog.yaml").symlink_to("..data/catalog.yaml")
    config = {"catalog_path": str(mount / "catalog.yaml")}
    with run_gateway(tmp_path, [], config) as running:
        assert ids(running) == ["first"]
        for number in (2, 3):
            publish(f"..2026_{number}", text_of(odd_server("echo", id=f"number-{number}")))
            _wait_for_ids(running, f"number-{number}")


def test_a_file_that_is_away_changes_nothing_until_it_is_back(running: Running) -> None:
    path = running.gateway.catalog_path
    text = path.read_text("utf-8")
    path.unlink()
    wait_until(lambda: running.log("watched file is away"), "its absence was noticed")
    assert ids(running) == ["kept", "changed"]
    assert running.caller.tool("kept", "echo", text="x").text == "x"
    path.write_text(text + "- {id: later, runtime: {type: docker, image: x}}\n", "utf-8")
    wait_until(lambda: ids(running) == ["kept", "changed", "later"], "it is back")


def test_only_what_changed_is_touched(running: Running) -> None:
    """What is kept keeps its process; a new definition holds from the next start on."""
    caller = running.caller
    for server in ("kept", "changed"):
        assert caller.call(server, "ping").result == {}
    kept, changed = running.starts("kept"), running.starts("changed")
    running.gateway.catalog_path.write_text(
        text_of(
            odd_server("echo", id="kept", tags=["old"]),
            odd_server("echo", id="changed", env={"COLOUR": "blue"}),
        ),
        "utf-8",
    )
    wait_until(lambda: caller.shown("changed")["env"], "the new definition is in force")

    assert "COLOUR" not in caller.call("changed", "test/environment").result
    assert running.starts("changed") == changed
    assert caller.post("/servers/changed/restart").status == 200
    assert caller.call("changed", "test/environment").result["COLOUR"] == "blue"
    assert len(running.starts("changed")) == 2
    assert running.starts("kept") == kept
    assert kept[0] in owned_by(running.pid)


def test_a_removed_server_finishes_what_it_has(running: Running) -> None:
    caller = running.caller
    assert caller.call("changed", "ping").result == {}
    call = caller.begin("changed", "sleep", seconds=2)
    wait_until(lambda: caller.shown("changed")["request_count"] >= 2, "the call is in flight")
    running.gateway.catalog_path.write_text(text_of(odd_server("echo", id="kept")), "utf-8")
    wait_until(lambda: ids(running) == ["kept"], "it is out of the catalog")

    answer = caller.call("changed", "ping")
    assert (answer.status, answer.error["code"]) == (404, -32001)
    response = call.getresponse()
    assert response.status == 200
    assert b"slept" in response.read()
    call.close()
    pid = running.starts("changed")[0]
    wait_until(lambda: pid not in owned_by(running.pid), "its process is gone")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("servers: [", "catalog.yaml:2: not valid YAML"),
        ("servers:\n- id: a\n- id: a\n", "Duplicate server ID: a"),
        ("servers:\n- {id: a, runtime: {type: warp}}\n", "has unknown runtime type: warp"),
        (text_of(odd_server("echo", env={"X": "${NO_SUCH_VARIABLE}"})), "NO_SUCH_VARIABLE"),
    ],
)
def test_an_invalid_catalog_changes_nothing(running: Running, text: str, reason: str) -> None:
    caller = running.caller
    assert caller.call("kept", "ping").result == {}
    running.gateway.catalog_path.write_text(text, "utf-8")
    wait_until(lambda: running.log("reload refused"), "it was refused")

    assert reason in str(running.log("reload refused")[-1]["problems"])
    answer = caller.post("/admin/reload")
    assert answer.status == 500
    assert answer.json["error"] == "Internal Server Error"
    assert answer.json["message"].startswith("Failed to reload catalog: ")
    assert reason in answer.json["message"]
    assert ids(running) == ["kept", "changed"]
    assert caller.call("kept", "ping").result == {}
    assert len(running.starts("kept")) == 1


def test_reload_by_hand_says_what_changed(tmp_path: Path) -> None:
    servers = [odd_server("echo", id="a"), odd_server("echo", id="b")]
    with run_gateway(tmp_path, servers, {"hot_reload": False}) as running:
        before = running.caller.get("/stats").json["last_reload"]
        assert running.caller.post("/admin/reload").json == {
            "status": "ok",
            "message": "Catalog reloaded",
            "servers_loaded": 2,
            "servers_added": 0,
            "servers_removed": 0,
            "servers_modified": 0,
        }
        assert running.caller.get("/stats").json["last_reload"] >= before
        changed = odd_server("echo", id="a", tags=["x"])
        running.gateway.catalog_path.write_text(
            text_of(changed, odd_server("echo", id="c"), odd_server("echo", id="d")), "utf-8"
        )
        assert ids(running) == ["a", "b"]
        report = running.caller.post("/admin/reload").json
        assert report["servers_loaded"] == 3
        assert report["servers_added"] == 2
        assert report["servers_removed"] == 1
        assert report["servers_modified"] == 1
        assert ids(running) == ["a", "c", "d"]


def test_a_file_that_was_reloaded_by_hand_and_put_back_is_back_in_force(running: Running) -> None:
    path = running.gateway.config_path
    before = path.read_bytes()
    change_config(running, max_body_bytes=2000)
    assert running.caller.post("/admin/reload").status == 200
    path.write_bytes(before)
    wait_until(lambda: len(running.log("reloaded")) == 2, "the old file was read")
    assert running.caller.call("kept", "tools/list", {"cursor": "x" * 3000}).status != 413


def test_a_new_key_applies_at_once(running: Running) -> None:
    change_config(running, api_key=NEW_KEY)
    new, old = running.as_caller(NEW_KEY), running.caller
    wait_until(lambda: new.get("/servers").status == 200, "the new key opens")
    refused = old.get("/servers")
    assert (refused.status, refused.body) == (
        403,
        b'{"error":"Forbidden","message":"Invalid API key"}',
    )
    assert NEW_KEY not in "".join(running.gateway.lines)
    assert KEY not in "".join(running.gateway.lines)


def test_a_new_key_in_a_file_applies_at_once(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.touch(0o600)
    file.write_text(KEY + "\n", "ascii")
    with run_gateway(tmp_path, [], {"api_key_file": str(file)}, key=None) as running:
        assert running.caller.get("/servers").status == 200
        rename_over(file, NEW_KEY)
        new = running.as_caller(NEW_KEY)
        wait_until(lambda: new.get("/servers").status == 200, "the new key opens")
        assert running.caller.get("/servers").status == 403
        # An empty file is a mistake, never an open door or one without a key that fits.
        file.write_text("\n", "ascii")
        wait_until(lambda: running.log("reload refused"), "the empty file was refused")
        assert new.get("/servers").status == 200
        assert running.as_caller(None).get("/servers").status == 401


@pytest.mark.parametrize(
    "changes",
    [{"api_key": None}, {"api_key": ""}, {"api_key": "${NO_SUCH_VARIABLE}"}, {"api_key": 12345}],
    ids=["removed", "empty", "unset", "number"],
)
def test_a_reload_never_opens_the_door(running: Running, changes: Json) -> None:
    change_config(running, **changes)
    wait_until(lambda: running.log("reload refused"), "it was refused")
    assert running.as_caller(None).get("/servers").status == 401
    assert running.as_caller("").get("/servers").status == 401
    assert running.caller.get("/servers").status == 200
    answer = running.caller.post("/admin/reload")
    assert answer.status == 500
    assert "Failed to reload catalog: " in answer.json["message"]


def test_limits_and_levels_apply_at_once(tmp_path: Path) -> None:
    servers = [odd_server("never_answers")]
    with run_gateway(tmp_path, servers, {"cors_origins": ["https://a.example"]}) as running:
        assert running.caller.call("never_answers", "ping").result == {}
        origin = {"Origin": "https://b.example"}
        assert running.caller.send("GET", "/servers", headers=origin).status == 403
        change_config(
            running,
            request_timeout_seconds=1,
            max_body_bytes=2048,
            log_level="debug",
            access_log="all",
            cors_origins=["https://b.example"],
        )
        wait_until(
            lambda: running.caller.send("GET", "/servers", headers=origin).status == 200,
            "the new origins are in force",
        )
        answer = running.caller.send("GET", "/servers", headers=origin)
        assert answer.headers["access-control-allow-origin"] == "https://b.example"
        assert running.caller.tool("never_answers", "echo").status == 504
        assert running.caller.tool("never_answers", "echo", text="x" * 3000).status == 413
        wait_until(lambda: running.log("request"), "requests are logged")
        change_config(running, log_level="error")
        wait_until(lambda: _quiet(running), "the new level is in force")


def _quiet(running: Running) -> bool:
    """Whether a request is no longer logged."""
    before = len(running.log("request"))
    running.caller.get("/servers")
    return len(running.log("request")) == before


def test_a_new_idle_timeout_holds_for_what_runs(running: Running) -> None:
    assert running.caller.call("kept", "ping").result == {}
    change_config(running, idle_timeout_seconds=1)
    wait_until(lambda: running.caller.status("kept") == "stopped", "it stopped")


def test_what_needs_a_restart_says_so(running: Running) -> None:
    change_config(
        running,
        listen_addr="127.0.0.1:1",
        log_format="human",
        auth={"store": "keys.db"},
        api_key=NEW_KEY,
    )
    new = running.as_caller(NEW_KEY)
    wait_until(lambda: new.get("/servers").status == 200, "the rest is in force")
    message = "setting takes effect at the next start"
    wait_until(lambda: len(running.log(message)) == 3, "all settings are named")
    settings = {line["setting"] for line in running.log(message)}
    assert settings == {"listen_addr", "log_format", "store"}
    assert {line["level"] for line in running.log(message)} == {"warning"}


def test_a_new_catalog_path_is_watched_from_then_on(running: Running) -> None:
    other = running.gateway.catalog_path.with_name("other.yaml")
    other.write_text(text_of(odd_server("echo", id="other")), "utf-8")
    change_config(running, catalog_path=str(other))
    wait_until(lambda: ids(running) == ["other"], "the other catalog is in force")
    other.write_text(text_of(odd_server("echo", id="edited")), "utf-8")
    wait_until(lambda: ids(running) == ["edited"], "its change is in force")


def test_many_edits_in_a_row_are_few_reloads(running: Running) -> None:
    texts = [text_of(odd_server("echo", id=f"number-{number}")) for number in range(30)]
    began_s = time.monotonic()
    for text in texts:
        rename_over(running.gateway.catalog_path, text)
    took_s = time.monotonic() - began_s
    wait_until(lambda: ids(running) == ["number-29"], "the last edit is in force")
    # One for each pause that the machine may have made, and half a second is one.
    assert len(running.log("reloaded")) <= 2 + took_s / 0.5


def test_sighup_reloads(tmp_path: Path) -> None:
    with run_gateway(tmp_path, [], {"hot_reload": False}) as running:
        running.gateway.catalog_path.write_text(text_of(odd_server("echo")), "utf-8")
        os.kill(running.pid, signal.SIGHUP)
        wait_until(lambda: ids(running) == ["echo"], "it was reloaded")


TENANTS: Json = {
    "roles": {"lister": ["servers:list"]},
    "tenants": [
        {
            "id": "a",
            "api_key": "test-key-0123456789-a",
            "namespaces": ["first"],
            "keys": [{"name": "ci", "api_key": "test-key-0123456789-ci", "role": "lister"}],
        },
        {"id": "b", "api_key_file": "b.key", "namespaces": []},
    ],
}


@pytest.fixture
def tenants(tmp_path: Path) -> Iterator[Running]:
    (tmp_path / "b.key").touch(0o600)
    (tmp_path / "b.key").write_text("test-key-0123456789-b\n", "ascii")
    servers = [
        odd_server("echo", id="one", namespace="first"),
        odd_server("echo", id="two", namespace="second"),
    ]
    with run_gateway(tmp_path, servers, TENANTS) as gateway:
        yield gateway


def seen_with(running: Running, key: str | None) -> tuple[int, list[str]]:
    """The status, and the servers that this key is shown."""
    answer = running.as_caller(key).get("/servers")
    return answer.status, [server["id"] for server in answer.json if answer.status == 200]


def seen(running: Running) -> list[tuple[int, list[str]]]:
    names = (KEY, "test-key-0123456789-a", "test-key-0123456789-ci", "test-key-0123456789-b")
    return [seen_with(running, key) for key in (*names, "test-key-of-nobody", None)]


AT_FIRST: list[tuple[int, list[str]]] = [
    (200, ["one", "two"]),
    (200, ["one"]),
    (200, ["one"]),
    (200, []),
    (403, []),
    (401, []),
]


def first_tenant(**changes: object) -> Json:
    """The block with these members of its first tenant; None takes one out."""
    changed = TENANTS["tenants"][0] | changes
    kept = {name: value for name, value in changed.items() if value is not None}
    return {"tenants": [kept, TENANTS["tenants"][1]]}


BROKEN: list[Json] = [
    {"tenants": {}},
    {"tenants": "${NO_SUCH_VARIABLE}"},
    {"roles": {"lister": ["servers-list"]}},
    {"roles": {"admin": []}},
    {"roles": None},
    {"auth": {"store": ""}},
    first_tenant(id=None),
    first_tenant(id="b"),
    first_tenant(namespaces=None),
    first_tenant(namespaces="*"),
    first_tenant(namespaces=["*"]),
    first_tenant(namespace=["second"]),
    first_tenant(api_key=""),
    first_tenant(api_key="${NO_SUCH_VARIABLE}"),
    first_tenant(api_key="${EMPTY:-}"),
    first_tenant(api_key=12345678),
    first_tenant(api_key=True),
    first_tenant(api_key=KEY),
    first_tenant(api_key_hash="sha256:" + "0" * 64),
    first_tenant(role="opertor"),
    first_tenant(limits={"rpm": 1}),
    first_tenant(keys="*"),
    first_tenant(keys=[{"name": "ci"}]),
    first_tenant(keys=[{"name": "ci", "api_key": "test-key-0123456789-ci", "tools": None}]),
    first_tenant(
        keys=[{"name": "ci", "api_key": "test-key-0123456789-ci", "servers": ["${E:-}*"]}]
    ),
    first_tenant(keys=[{"name": "ci", "api_key": "test-key-0123456789-ci", "ip_allow": ["*"]}]),
    first_tenant(keys=[{"name": "ci", "api_key": "test-key-0123456789-ci", "expires_at": "x"}]),
]


def test_no_broken_block_changes_what_any_key_may_do(tenants: Running) -> None:
    assert seen(tenants) == AT_FIRST
    path = tenants.gateway.config_path
    good = path.read_text("utf-8")
    for changes in BROKEN:
        change_config(tenants, **changes)
        answer = tenants.caller.post("/admin/reload")
        assert answer.status == 500, changes
        assert "Failed to reload catalog: " in answer.json["message"]
        assert "0123456789" not in answer.json["message"]
        assert seen(tenants) == AT_FIRST, changes
        path.write_text(good, "utf-8")
    assert "0123456789" not in "".join(tenants.gateway.lines)


def test_tenants_and_their_key_files_apply_at_once(tenants: Running, tmp_path: Path) -> None:
    rename_over(tmp_path / "b.key", NEW_KEY)
    wait_until(lambda: seen_with(tenants, NEW_KEY) == (200, []), "the new key of b opens")
    assert seen_with(tenants, "test-key-0123456789-b") == (403, [])
    change_config(tenants, **first_tenant(namespaces=["second", "thrid"], keys=[]))
    wait_until(
        lambda: seen_with(tenants, "test-key-0123456789-a") == (200, ["two"]),
        "the other namespace is in force",
    )
    assert seen_with(tenants, "test-key-0123456789-ci") == (403, [])
    wait_until(lambda: tenants.log("configuration"), "the unknown namespace was noted")
    line = tenants.log("configuration")[-1]
    assert line["note"] == "no server of the catalog is in the namespace 'thrid'"
    assert line["where"].endswith("tenants[0].namespaces")


def test_the_last_tenant_gone_opens_no_door(tmp_path: Path) -> None:
    only: Json = {"tenants": [{"id": "a", "api_key": KEY, "namespaces": ["default"]}]}
    with run_gateway(tmp_path, [odd_server("echo")], only, key=None) as running:
        assert ids(running) == ["echo"]
        change_config(running, tenants=None)
        wait_until(lambda: running.log("reload refused"), "it was refused")
        assert running.as_caller(None).get("/servers").status == 401
        assert ids(running) == ["echo"]
        change_config(running, tenants=[])
        wait_until(lambda: running.caller.get("/servers").status == 403, "nobody is left")
        assert running.as_caller(None).get("/servers").status == 401
