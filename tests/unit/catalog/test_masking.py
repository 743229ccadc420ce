from __future__ import annotations

import base64
import json
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from open_mcp_gateway.catalog.load import load_catalog
from open_mcp_gateway.catalog.masking import mask_urls
from open_mcp_gateway.catalog.model import CatalogEntry, Docker, K8sService, LocalProcess, Remote


def entry(folder: Path, server: str, environ: dict[str, str] | None = None) -> CatalogEntry:
    path = folder / "catalog.yaml"
    path.write_text(f"servers:\n- {server}\n")
    (found,) = load_catalog(path, environ or {}).snapshot.entries.values()
    return found


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://h/x", "https://h/x"),
        ("https://u:p@h/x", "https://***@h/x"),
        ("https://u@h:1/x?a=b&c", "https://***@h:1/x?***"),
        ("https://h?a=b", "https://h?***"),
        ("https://h/x?", "https://h/x?"),
        ("https://h/a@b", "https://h/a@b"),
        ("https://a@b@h/x", "https://***@h/x"),
        ("postgresql://u:p@h/db", "postgresql://***@h/db"),
        ("--url=redis://:p@h", "--url=redis://***@h"),
        ("two http://a:b@h http://c:d@i?k=v", "two http://***@h http://***@i?***"),
        ("no url: a@b?c", "no url: a@b?c"),
    ],
)
def test_urls(text: str, masked: str) -> None:
    assert mask_urls(text) == masked


def test_everything_secret_of_a_local_process(tmp_path: Path) -> None:
    found = entry(
        tmp_path,
        '{id: a, display_name: "N ${NAME}", description: "${NAME}", tags: [t, "${NAME}"],'
        ' namespace: "${SPACE}", idle_timeout_seconds: "${SECONDS}", era: "${ERA}",'
        ' runtime: {type: local-process, command: "${DIR}/x", working_dir: "${DIR}/sub",'
        ' args: ["--token=${TOKEN}", "postgres://me:pass%20word@h/db"]},'
        ' env: {A: literal, B: "${TOKEN}", C: abc}}',
        {"NAME": "Secret Name", "SPACE": "space", "SECONDS": "5", "DIR": "/opt/hidden",
         "TOKEN": "test-token", "ERA": "legacy"},
    )  # fmt: skip
    shown = found.shown
    assert shown.id == "a"
    assert (shown.display_name, shown.description, shown.tags) == ("N ***", "***", ("t", "***"))
    assert (shown.namespace, shown.idle_timeout_seconds, shown.era) == ("***", None, "auto")
    assert shown.runtime == LocalProcess(
        command="***/x", working_dir="***/sub", args=("--token=***", "postgres://***@h/db")
    )
    assert shown.env == {"A": "***", "B": "***", "C": "***"}
    assert found.spec.runtime == LocalProcess(
        command="/opt/hidden/x",
        working_dir="/opt/hidden/sub",
        args=("--token=test-token", "postgres://me:pass%20word@h/db"),
    )
    assert set(found.secrets) >= {
        "me:pass%20word", "me:pass word", "pass%20word", "/opt/hidden", "Secret Name", "pass word",
        "test-token", "literal", "legacy", "space",
    }  # fmt: skip


def test_everything_secret_of_a_remote(tmp_path: Path) -> None:
    found = entry(
        tmp_path,
        '{id: a, runtime: {type: remote-http, url: "https://user:pa%40ss@${HOST}/x?key=a%2Fbcd&n=1",'
        ' headers: {X-Auth: "Bearer test-token", X-A: "${HOST}"}}}',
        {"HOST": "inner.example.com"},
    )
    assert found.shown.runtime == Remote(
        url="https://***@***/x?***", headers={"X-Auth": "***", "X-A": "***"}
    )
    assert set(found.secrets) >= {
        "user:pa%40ss", "user:pa@ss", "user", "pa%40ss", "pa@ss", "key=a%2Fbcd&n=1", "a%2Fbcd",
        "a/bcd", "Bearer test-token", "test-token", "inner.example.com",
    }  # fmt: skip
    assert found.scrub("GET Bearer test-token at inner.example.com") == "GET *** at ***"


def test_a_whole_url_by_variable(tmp_path: Path) -> None:
    url = "https://u:test-pass@h/x?key=test-key-1"
    found = entry(tmp_path, '{id: a, runtime: {type: remote-sse, url: "${URL}"}}', {"URL": url})
    assert found.shown.runtime == Remote(url="***")
    assert {url, "test-pass", "test-key-1"} <= set(found.secrets)


def test_numbers_by_variable_are_not_shown(tmp_path: Path) -> None:
    found = entry(
        tmp_path,
        '{id: a, runtime: {type: k8s-service, namespace: n, service_name: s, port: "${P}"}}',
        {"P": "8080"},
    )
    assert found.spec.runtime == K8sService(namespace="n", service_name="s", port=8080)
    assert found.shown.runtime == K8sService(namespace="n", service_name="s", port=0)
    found = entry(tmp_path, '{id: a, runtime: {type: docker, image: "${I}"}}', {"I": "img"})
    assert found.shown.runtime == Docker(image="***")


def test_each_line_of_a_long_secret(tmp_path: Path) -> None:
    found = entry(
        tmp_path,
        '{id: a, runtime: {type: local-process, command: x}, env: {KEY: "${PEM}"}}',
        {"PEM": "-----BEGIN-----\nline-of-a-key\nab\n"},
    )
    assert "line-of-a-key" in found.secrets
    assert "ab" not in found.secrets
    assert found.scrub("bad line-of-a-key here") == "bad *** here"


def test_longest_first(tmp_path: Path) -> None:
    found = entry(
        tmp_path,
        "{id: a, runtime: {type: local-process, command: x}, env: {A: abcd, B: abcdef, C: abc}}",
    )
    lengths = [len(secret) for secret in found.secrets]
    assert lengths == sorted(lengths, reverse=True)
    assert "abc" not in found.secrets
    assert found.scrub("abcdef abcd abc") == "*** *** abc"


TOKEN = 't/k n+"\u00fc\\?>~'


@pytest.mark.parametrize(
    "said",
    [
        TOKEN,
        quote(TOKEN),
        quote(TOKEN, safe=""),
        quote(TOKEN, safe="").lower(),  # has no capital letters of its own
        quote_plus(TOKEN),
        json.dumps(TOKEN)[1:-1],
        json.dumps(TOKEN, ensure_ascii=False)[1:-1],
        base64.b64encode(TOKEN.encode()).decode(),
        base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip("="),
    ],
)
def test_a_secret_is_found_however_it_is_written(tmp_path: Path, said: str) -> None:
    found = entry(
        tmp_path,
        '{id: a, runtime: {type: local-process, command: x}, env: {A: "${TOKEN}"}}',
        {"TOKEN": TOKEN},
    )
    assert found.scrub(f"GET http://h/?q={said}&x=1") == "GET http://h/?q=***&x=1"


def test_user_and_password_are_found_as_basic_authentication_has_them(tmp_path: Path) -> None:
    found = entry(
        tmp_path, '{id: a, runtime: {type: remote-http, url: "https://user:pa%40ss@h/x"}}'
    )
    basic = base64.b64encode(b"user:pa@ss").decode()
    assert found.scrub(f"401 for Basic {basic}") == "401 for Basic ***"
