"""config.yaml: every key, its default, and every way to get it wrong."""

# ruff: noqa: E501  a row of a table is one line

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from open_mcp_gateway.config.load import (
    LoadedConfig,
    Overrides,
    config_files,
    find_catalog,
    find_config,
    load_config,
)
from open_mcp_gateway.config.model import Config, ListenAddress, LogFormat, LogLevel, ServerTls
from open_mcp_gateway.errors import InvalidConfig
from open_mcp_gateway.inbound.access_log import AccessLog

ENVIRON = {"HOME": "/home/me", "SECONDS": "42", "BAD": "test-hidden", "PORT": "5555"}


def load(folder: Path, text: str, overrides: Overrides | None = None) -> LoadedConfig:
    path = folder / "config.yaml"
    path.write_text(text)
    return load_config(path, overrides or Overrides(), ENVIRON)


def problems_of(folder: Path, text: str, overrides: Overrides | None = None) -> list[str]:
    with pytest.raises(InvalidConfig) as caught:
        load(folder, text, overrides)
    prefix = f"{folder / 'config.yaml'}:"
    return [str(problem).removeprefix(prefix) for problem in caught.value.problems]


def test_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = Config(catalog_path=tmp_path / "catalog.yaml")
    assert load_config(None, Overrides(), {}).config == expected
    assert load_config(None, Overrides(), {}).warnings == ()
    assert load(tmp_path, "log_level: info").config == replace(
        expected, source=tmp_path / "config.yaml"
    )


def test_every_key(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        """
listen_addr: 0.0.0.0:${PORT}
catalog_path: ~/servers.yaml
log_level: trace
log_format: json
access_log: off
idle_timeout_seconds: ${SECONDS}
health_check_interval_seconds: 0
start_timeout_seconds: 1
request_timeout_seconds: "${NONE:-600}"
max_request_seconds: 86400
max_connections_per_server: 1
max_body_bytes: 1024
cors_enabled: false
cors_origins: ["https://a.example", "http://localhost:3000"]
allowed_hosts: [gateway.example, "gateway.example:8443", "*.inner.example"]
public_url: https://gateway.example/base
hot_reload: no
workers: 1
auth: {}
""",
    )
    assert loaded.warnings == ()
    assert loaded.config == Config(
        source=tmp_path / "config.yaml",
        listen_addr=ListenAddress("0.0.0.0", 5555),
        catalog_path=Path("/home/me/servers.yaml"),
        log_level=LogLevel.TRACE,
        log_format=LogFormat.JSON,
        access_log=AccessLog.OFF,
        idle_timeout_seconds=42,
        health_check_interval_seconds=0,
        start_timeout_seconds=1,
        request_timeout_seconds=600,
        max_request_seconds=86400,
        max_connections_per_server=1,
        max_body_bytes=1024,
        cors_enabled=False,
        cors_origins=("https://a.example", "http://localhost:3000"),
        allowed_hosts=("gateway.example", "gateway.example:8443", "*.inner.example"),
        public_url="https://gateway.example/base",
        hot_reload=False,
    )


def test_null_where_it_means_the_default(tmp_path: Path) -> None:
    loaded = load(tmp_path, "log_format: ~\npublic_url: ~\n")
    assert loaded.config == Config(
        source=tmp_path / "config.yaml", catalog_path=tmp_path / "catalog.yaml"
    )


def test_empty_lists_and_any(tmp_path: Path) -> None:
    config = load(tmp_path, 'cors_origins: []\nallowed_hosts: ["*"]').config
    assert (config.cors_origins, config.allowed_hosts) == ((), ("*",))


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:4444", "127.0.0.1", 4444),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ('"[::1]:65535"', "::1", 65535),
        ('"[fe80::1%eth0]:80"', "fe80::1%eth0", 80),
        ("localhost:80", "localhost", 80),
        ("my-host.example:80", "my-host.example", 80),
    ],
)
def test_listen_addresses(tmp_path: Path, text: str, host: str, port: int) -> None:
    address = load(tmp_path, f"listen_addr: {text}").config.listen_addr
    assert address == ListenAddress(host, port)
    assert str(address) == text.strip('"')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4444", "is a port without a host; write e.g. 127.0.0.1:4444"),
        ("'4444'", "is a port without a host; write e.g. 127.0.0.1:4444"),
        ("127.0.0.1", "has no port; write e.g. 127.0.0.1:4444"),
        ("'[::1]'", "has no port; write e.g. 127.0.0.1:4444"),
        ("''", "has no port; write e.g. 127.0.0.1:4444"),
        ("':4444'", "has no host; write 127.0.0.1:4444, or 0.0.0.0:4444 for every interface"),
        ("'*:4444'", "has no host; write 127.0.0.1:4444, or 0.0.0.0:4444 for every interface"),
        ("'::1:4444'", "has an IPv6 address without brackets; write e.g. [::1]:4444"),
        ("'::1'", "has an IPv6 address without brackets; write e.g. [::1]:4444"),
        ("'fe80::1:4444'", "has an IPv6 address without brackets; write e.g. [::1]:4444"),
        ("'[zz]:80'", "has no valid IPv6 address in its brackets; write e.g. [::1]:4444"),
        ("999.0.0.1:80", "has no valid IPv4 address; write e.g. 127.0.0.1:4444"),
        ("127.1:80", "has no valid IPv4 address; write e.g. 127.0.0.1:4444"),
        ("localhost:65536", "has a port above 65535; write one from 0 to 65535"),
        ("localhost:-1", "is not host:port; write e.g. 127.0.0.1:4444 or [::1]:4444"),
        ("localhost:http", "is not host:port; write e.g. 127.0.0.1:4444 or [::1]:4444"),
        ("'local host:80'", "is not host:port; write e.g. 127.0.0.1:4444 or [::1]:4444"),
        ("http://localhost:80", "is a URL; write host:port without a scheme, e.g. 127.0.0.1:4444"),
        ("[a]", "must be text, but is a list; write text"),
        ("", "is empty; write a value or remove the line"),
    ],
)
def test_wrong_listen_addresses(tmp_path: Path, text: str, message: str) -> None:
    assert problems_of(tmp_path, f"listen_addr: {text}") == [f"1 listen_addr: {message}"]


LATER = "is not supported by this version of the gateway yet; remove the block"
KNOWN = (
    "known are log_level, log_format, access_log, idle_timeout_seconds, "
    "health_check_interval_seconds, start_timeout_seconds, request_timeout_seconds, "
    "max_request_seconds, max_connections_per_server, max_body_bytes, cors_enabled, hot_reload, "
    "listen_addr, catalog_path, api_key, api_key_file, api_key_hash, cors_origins, allowed_hosts, "
    "public_url, tls, auth, tenants, roles, workers"
)
ANY = 'write [] for none, or ["*"] for any'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("oauth: {}", f"oauth: 'oauth' {LATER}"),
        ("aggregate: {prefix: auto}", f"aggregate: 'aggregate' {LATER}"),
        ("oaut: {}", "oaut: unknown field 'oaut'; did you mean 'auth'?"),
        ("aggregates: {}", f"aggregates: unknown field 'aggregates'; {KNOWN}"),
        ("auth: {peper: x}", "auth.peper: unknown field 'peper'; known are require, store"),
        ("auth: {pepper: }", f"auth.pepper: 'auth.pepper' {LATER}"),
        ("auth: {trusted_proxies: []}", f"auth.trusted_proxies: 'auth.trusted_proxies' {LATER}"),
        ("auth: {max_staleness: 5s}", f"auth.max_staleness: 'auth.max_staleness' {LATER}"),
        ("auth: {required: true}", "auth.required: unknown field 'required'; did you mean 'require'?"),
        ("auth: {require: 1}", "auth.require: must be true or false, but is a whole number; write true or false"),
        ("auth:", "auth: must be a mapping, but is empty; write a value or remove the line"),
        ("auth: x", "auth: must be a mapping, but is text; write a mapping"),
        ("workers: 2", "workers: 'workers' other than 1 is not supported by this version of the gateway yet; remove the line"),
        ("workers: 0", "workers: must be at least 1"),
        ("workers: x", "workers: must be a whole number, but is text; write a whole number"),
        ("tenant: []", "tenant: unknown field 'tenant'; did you mean 'tenants'?"),
        ("apikey: x", "apikey: unknown field 'apikey'; did you mean 'api_key'?"),
        ("log_levle: info", "log_levle: unknown field 'log_levle'; did you mean 'log_level'?"),
        ("outbound: {}", f"outbound: unknown field 'outbound'; {KNOWN}"),
        ("source: x", f"source: unknown field 'source'; {KNOWN}"),
        ("keys: []", f"keys: unknown field 'keys'; {KNOWN}"),
        ("auth_enabled: true", "auth_enabled: unknown field 'auth_enabled'; did you mean 'cors_enabled'?"),
        ("log_level: INFO", "log_level: must be one of trace, debug, info, warn, error; did you mean 'info'?"),
        ("log_level: ${BAD}", "log_level: must be one of trace, debug, info, warn, error (the value comes from BAD)"),
        ("log_format: xml", "log_format: must be one of human, json"),
        ("access_log: some", "access_log: must be one of errors, all, off"),
        ("idle_timeout_seconds: -1", "idle_timeout_seconds: must be from 0 to 31622400"),
        ("idle_timeout_seconds: 5m", "idle_timeout_seconds: must be a whole number, but is text; write a whole number"),
        ("idle_timeout_seconds: ${BAD}", "idle_timeout_seconds: is not a whole number in plain decimal; write e.g. 30 (the value comes from BAD)"),
        ("idle_timeout_seconds:", "idle_timeout_seconds: must be a whole number, but is empty; write a value or remove the line"),
        ("request_timeout_seconds: 0", "request_timeout_seconds: must be from 1 to 86400"),
        ("start_timeout_seconds: 0", "start_timeout_seconds: must be from 1 to 3600"),
        ("health_check_interval_seconds: 1.5", "health_check_interval_seconds: must be a whole number, but is a number; write a whole number"),
        ("max_request_seconds: 0", "max_request_seconds: must be from 1 to 86400"),
        ("max_connections_per_server: 0", "max_connections_per_server: must be from 1 to 10000"),
        ("max_body_bytes: 8MiB", "max_body_bytes: must be a whole number, but is text; write a whole number"),
        ("max_body_bytes: 0", "max_body_bytes: must be from 1024 to 1073741824"),
        ("cors_enabled: 'no'", "cors_enabled: must be true or false, but is text; write true or false"),
        ("hot_reload: 0", "hot_reload: must be true or false, but is a whole number; write true or false"),
        ("cors_origins: https://a.example", f"cors_origins: must be a list, but is text; {ANY}"),
        ("cors_origins:", f"cors_origins: must be a list, but is empty; {ANY}"),
        ("cors_origins: [a.example]", "cors_origins[0]: is not an origin; write scheme://host[:port], or '*'"),
        ("cors_origins: ['https://a.example/']", "cors_origins[0]: is not an origin; write scheme://host[:port], or '*'"),
        ("cors_origins: ['https://*.a.example']", "cors_origins[0]: is not an origin; write scheme://host[:port], or '*'"),
        ("cors_origins: ['']", "cors_origins[0]: is not an origin; write scheme://host[:port], or '*'"),
        ("cors_origins: [1]", "cors_origins[0]: is a whole number, not text; quote it"),
        ("cors_origins: ['${BAD}']", "cors_origins[0]: is not an origin; write scheme://host[:port], or '*' (the value comes from BAD)"),
        ("allowed_hosts:", f"allowed_hosts: must be a list, but is empty; {ANY}"),
        ("allowed_hosts: ['http://a']", "allowed_hosts[0]: is not a host; write name or name:port, or '*'"),
        ("allowed_hosts: ['']", "allowed_hosts[0]: is not a host; write name or name:port, or '*'"),
        ("public_url: gateway.example", "public_url: must start with http:// or https://"),
        ("public_url: https://u@h", "public_url: holds a user or a query; write scheme, host and path alone"),
        ("public_url: https://h?x=y", "public_url: holds a user or a query; write scheme, host and path alone"),
        ("catalog_path: ''", "catalog_path: is an empty path; write the whole path"),
        ("catalog_path:", "catalog_path: is empty; write a value or remove the line"),
        ("catalog_path: ~nobody-of-that-name/x", "catalog_path: '~' leads to no home folder; write the whole path"),
        ("tls:", "tls: must be a mapping, but is empty; write a value or remove the line"),
        ("tls: {key: f, cert: none}", "tls.cert: the file does not exist; mend the path or its permissions"),
        ("tls: {cert: f, key: f, ca: f}", "tls.ca: unknown field 'ca'; known are cert, key"),
        ("tls: {cert: f}", "tls: missing required field 'key'; add it"),
        ("tls: {key: f}", "tls: missing required field 'cert'; add it"),
        ("tls: {cert: '', key: f}", "tls.cert: is an empty path; write the whole path"),
        ("tls: {cert: f, key: f}", "tls: certificate and key do not work together; give a PEM chain and its own key, the key without a passphrase"),
    ],
)  # fmt: skip
def test_each_mistake(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "f").write_text("not a certificate")
    problems = problems_of(tmp_path, text)
    assert problems[0] == f"1 {message}"
    assert len(problems) == 1 + ("ca: f" in text)


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    problems = problems_of(
        tmp_path,
        "api_key: ''\nlisten_addr: x\ntenants:\nlog_level: x\nbad: 1\nbad: 2\ntls: {}\n",
        Overrides("y", " ", "loud"),
    )
    assert [problem.split(": ")[0] for problem in problems] == [
        "6 bad",
        "5 bad",
        "4 log_level",
        "1 api_key",
        "3 tenants",
        "2 listen_addr",
        "7 tls",
        "7 tls",
        "--catalog",
        "--listen-addr",
        "--log-level",
    ]


def test_a_file_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="does not exist"):
        load_config(tmp_path / "none.yaml", Overrides(), {})


def _certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-subj", "/CN=localhost", "-days", "1", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def test_tls(tmp_path: Path) -> None:
    cert, key = _certificate(tmp_path, "one")
    config = load(tmp_path, "tls: {cert: one.pem, key: ./one.key}").config
    assert config.tls == ServerTls(cert, key)
    _certificate(tmp_path, "two")
    (problem,) = problems_of(tmp_path, "tls: {cert: one.pem, key: two.key}")
    assert "certificate and key do not work together" in problem


@pytest.mark.parametrize("passphrase", ["X", "test-passphrase"])
def test_a_key_with_a_passphrase_is_refused_and_not_asked_for(
    tmp_path: Path, passphrase: str
) -> None:
    _, key = _certificate(tmp_path, "one")
    subprocess.run(
        ["openssl", "ec", "-in", key, "-aes256", "-passout", f"pass:{passphrase}", "-out", tmp_path / "locked.key"],
        check=True, capture_output=True,
    )  # fmt: skip
    assert problems_of(tmp_path, "tls: {cert: one.pem, key: locked.key}") == [
        "1 tls: certificate and key do not work together; give a PEM chain and its own key, "
        "the key without a passphrase"
    ]


def test_a_request_timeout_that_never_comes(tmp_path: Path) -> None:
    loaded = load(tmp_path, "max_request_seconds: 10\nrequest_timeout_seconds: 20\n")
    assert [str(warning).partition(":")[2] for warning in loaded.warnings] == [
        "2 request_timeout_seconds: is above max_request_seconds (10), which ends a call first; "
        "raise that as well"
    ]
    [warning] = load(tmp_path, "max_request_seconds: 10").warnings
    assert warning.where.endswith(f"{tmp_path / 'config.yaml'}:1")
    assert load(tmp_path, "max_request_seconds: 30").warnings == ()


def test_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load(
        tmp_path,
        "listen_addr: 127.0.0.1:1\ncatalog_path: a.yaml\nlog_level: info",
        Overrides("[::1]:2", "b.yaml", "warn"),
    ).config
    assert config.listen_addr == ListenAddress("::1", 2)
    assert config.catalog_path == tmp_path / "elsewhere" / "b.yaml"
    assert config.log_level is LogLevel.WARN


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (Overrides(listen_addr="4444"), "--listen-addr: is a port without a host; write e.g. 127.0.0.1:4444"),
        (Overrides(listen_addr=""), "--listen-addr: has no port; write e.g. 127.0.0.1:4444"),
        (Overrides(listen_addr="${PORT}"), "--listen-addr: has no port; write e.g. 127.0.0.1:4444"),
        (Overrides(catalog_path=""), "--catalog: is not a path; name the file"),
        (Overrides(catalog_path="~nobody-of-that-name/x"), "--catalog: is not a path; name the file"),
        (Overrides(log_level="Warn"), "--log-level: must be one of trace, debug, info, warn, error; did you mean 'warn'?"),
    ],
)  # fmt: skip
def test_wrong_overrides(tmp_path: Path, overrides: Overrides, message: str) -> None:
    assert problems_of(tmp_path, "log_level: info", overrides) == [message]


def test_an_override_does_not_hide_a_mistake_in_the_file(tmp_path: Path) -> None:
    assert len(problems_of(tmp_path, "log_level: x", Overrides(log_level="info"))) == 1


def test_search_order(tmp_path: Path) -> None:
    home, cwd = tmp_path / "home", tmp_path / "cwd"
    user = home / ".config" / "mcp-gateway" / "config.yaml"
    environ = {"HOME": str(home)}
    user.parent.mkdir(parents=True)
    cwd.mkdir()
    assert find_config(None, environ, cwd) is None
    user.write_text("")
    assert find_config(None, environ, cwd) == user
    assert find_config(None, {}, cwd) is None
    (cwd / "config.yaml").write_text("")
    assert find_config(None, environ, cwd) == cwd / "config.yaml"
    named = tmp_path / "other.yaml"
    named.write_text("")
    assert find_config(named, environ, cwd) == named
    assert find_config(Path("../other.yaml"), environ, cwd) == cwd / "../other.yaml"


def test_all_places_in_their_order() -> None:
    places = [
        Path("/here/config.yaml"),
        Path("/home/me/.config/mcp-gateway/config.yaml"),
        Path("/etc/mcp-gateway/config.yaml"),
    ]
    assert config_files(ENVIRON, Path("/here")) == places
    for environ in ({}, {"HOME": ""}):
        assert config_files(environ, Path("/here")) == [places[0], places[2]]


def test_a_named_file_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(InvalidConfig) as caught:
        find_config(Path("other.yaml"), {}, tmp_path)
    assert [str(problem) for problem in caught.value.problems] == [
        "--config other.yaml: does not exist; create it, or mend the path"
    ]


def test_a_broken_link_or_unreachable_file_is_not_passed_over(tmp_path: Path) -> None:
    """Passing over it could start a gateway without the key that it holds."""
    (tmp_path / "config.yaml").symlink_to(tmp_path / "gone")
    found = find_config(None, {}, tmp_path)
    assert found == tmp_path / "config.yaml"
    with pytest.raises(InvalidConfig, match="does not exist"):
        load_config(found, Overrides(), {})
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert find_config(None, {}, loop) == loop / "config.yaml"


@pytest.mark.parametrize(
    ("text", "option", "expected"),
    [
        ("log_level: wrong", None, "catalog.yaml"),
        ("catalog_path: sub/a.yaml\napi_key: ${NONE}", None, "sub/a.yaml"),
        ("catalog_path: a.yaml", "b.yaml", "b.yaml"),
        ("not: [valid", "b.yaml", "b.yaml"),
        ("not: [valid", None, None),
        ("catalog_path: ${NONE}", None, None),
        ("log_level: info", " ", None),
    ],
)
def test_the_catalog_of_a_wrong_configuration(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    option: str | None,
    expected: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    found = find_catalog(tmp_path / "config.yaml", Overrides(catalog_path=option), {})
    assert found == (tmp_path / expected if expected else None)
    assert find_catalog(None, Overrides(), {}) == tmp_path / "catalog.yaml"
