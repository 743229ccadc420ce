"""Catalog files: everything that may stand in one, and every mistake with its words and place."""

# ruff: noqa: E501  a row of a table is one line

from __future__ import annotations

from pathlib import Path

import pytest

from open_mcp_gateway.catalog.load import LoadedCatalog, load_catalog
from open_mcp_gateway.catalog.model import (
    CatalogEntry,
    ClientTls,
    Docker,
    EraChoice,
    Isolation,
    K8sJob,
    K8sService,
    LocalProcess,
    Remote,
    ServerSpec,
)
from open_mcp_gateway.errors import InvalidConfig
from open_mcp_gateway.names import Namespace, ServerId

ENVIRON = {"HOME": "/home/me", "T": "test-hidden-value", "EMPTY": "", "ID": "by-variable"}


def write(folder: Path, text: str) -> Path:
    path = folder / "catalog.yaml"
    path.write_text(text)
    return path


def load(folder: Path, text: str) -> LoadedCatalog:
    return load_catalog(write(folder, text), ENVIRON)


def problems_of(folder: Path, text: str) -> list[str]:
    path = write(folder, text)
    with pytest.raises(InvalidConfig) as caught:
        load_catalog(path, ENVIRON)
    return [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]


def only(loaded: LoadedCatalog) -> CatalogEntry:
    (entry,) = loaded.snapshot.entries.values()
    return entry


def server(runtime: str, rest: str = "") -> str:
    """A catalog of one server ``a`` with this runtime on line 2."""
    return f"servers:\n- {{id: a, runtime: {runtime}{rest}}}\n"


LOCAL = "{type: local-process, command: x}"


def test_the_example_of_the_contract(tmp_path: Path) -> None:
    text = """
servers:
  - id: postgres
    display_name: PostgreSQL
    description: Query tool
    namespace: production
    tags: [database]
    runtime:
      type: local-process
      command: postgres-mcp
      args: ["--transport", "stdio"]
      working_dir: /opt/mcp
    env:
      PGPASSWORD: "${T}"
"""
    loaded = load(tmp_path, text)
    entry = only(loaded)
    assert loaded.warnings == ()
    assert entry.spec == ServerSpec(
        id=ServerId("postgres"),
        display_name="PostgreSQL",
        description="Query tool",
        namespace=Namespace("production"),
        tags=("database",),
        runtime=LocalProcess(
            command="postgres-mcp", args=("--transport", "stdio"), working_dir="/opt/mcp"
        ),
        env={"PGPASSWORD": "test-hidden-value"},
    )
    assert entry.shown.env == {"PGPASSWORD": "***"}
    assert entry.shown.runtime == entry.spec.runtime
    assert entry.runtime_type == "local-process"
    assert "test-hidden-value" in entry.secrets


def test_everything_that_can_be_said_of_a_server(tmp_path: Path) -> None:
    entry = only(
        load(
            tmp_path,
            server(
                LOCAL,
                ", era: legacy, isolation: session, interactive: no, idle_timeout_seconds: 0, "
                "request_timeout_seconds: 1, start_timeout_seconds: 3600, "
                "health_check_interval_seconds: 0, description: ~, display_name: ~, tags: , env: ",
            ),
        )
    )
    assert entry.spec == ServerSpec(
        id=ServerId("a"),
        display_name="a",
        runtime=LocalProcess(command="x"),
        era=EraChoice.LEGACY,
        isolation=Isolation.SESSION,
        interactive=False,
        idle_timeout_seconds=0,
        request_timeout_seconds=1,
        start_timeout_seconds=3600,
        health_check_interval_seconds=0,
    )


@pytest.mark.parametrize(
    ("runtime", "kind", "expected"),
    [
        ('{type: remote-sse, url: "http://[::1]:8080/x?k=v"}', "remote-sse",
         Remote(url="http://[::1]:8080/x?k=v")),
        ('{type: remote-http, url: "https://h/x", headers: {X-A: b}}', "remote-http",
         Remote(url="https://h/x", headers={"X-A": "b"})),
        ('{type: docker, image: i, container_name: c, volumes: ["a:b"], network: n, env_file: e, cpus: 1.5, memory: 1g}',
         "docker", Docker(image="i", container_name="c", volumes=("a:b",), network="n", env_file="e", cpus=1.5, memory="1g")),
        ("{type: docker, image: i}", "docker", Docker(image="i")),
        ("{type: docker, image: i, cpus: 2}", "docker", Docker(image="i", cpus=2.0)),
        ('{type: k8s-job, namespace: n, image: i, service_account: s, resources: {limits: {cpu: "1"}}}',
         "k8s-job", K8sJob(namespace="n", image="i", service_account="s", resources={"limits": {"cpu": "1"}})),
        ("{type: k8s-service, namespace: n, service_name: s, port: 80}", "k8s-service",
         K8sService(namespace="n", service_name="s", port=80)),
    ],
)  # fmt: skip
def test_runtimes(tmp_path: Path, runtime: str, kind: str, expected: object) -> None:
    entry = only(load(tmp_path, server(runtime)))
    assert entry.spec.runtime == expected
    assert entry.runtime_type == kind


def test_an_empty_catalog_is_one(tmp_path: Path) -> None:
    assert load(tmp_path, "servers: []").snapshot.entries == {}


def test_file_order_is_kept(tmp_path: Path) -> None:
    text = "servers:\n" + "".join(f"- {{id: {name}, runtime: {LOCAL}}}\n" for name in "zma")
    assert list(load(tmp_path, text).snapshot.entries) == ["z", "m", "a"]


@pytest.mark.parametrize(
    ("runtime", "command", "working_dir"),
    [
        ("command: python3", "python3", None),
        ("command: /usr/bin/env", "/usr/bin/env", None),
        ("command: bin/x", "{folder}/bin/x", None),
        ("command: ./x", "{folder}/x", None),
        ("command: ~/bin/x", "/home/me/bin/x", None),
        ("command: x, working_dir: ~", "x", None),
        ("command: x, working_dir: ''", None, None),
        ("command: x, working_dir: sub", "x", "{folder}/sub"),
        ("command: x, working_dir: ~/sub", "x", "/home/me/sub"),
        ("command: ./x, working_dir: sub", "{folder}/sub/x", "{folder}/sub"),
        ("command: ./x, working_dir: /opt", "/opt/x", "/opt"),
        ("command: /y/x, working_dir: sub", "/y/x", "{folder}/sub"),
    ],
)
def test_paths(tmp_path: Path, runtime: str, command: str | None, working_dir: str | None) -> None:
    text = server(f"{{type: local-process, {runtime}}}")
    if command is None:
        assert problems_of(tmp_path, text) == [
            "2 servers[0].runtime.working_dir: is an empty path; write the whole path"
        ]
        return
    entry = only(load(tmp_path, text))
    expected = LocalProcess(
        command=command.format(folder=tmp_path),
        working_dir=working_dir.format(folder=tmp_path) if working_dir else None,
    )
    assert entry.spec.runtime == expected
    assert entry.shown.runtime == expected


def test_a_command_below_an_unknown_home_stays_as_written(tmp_path: Path) -> None:
    loaded = load_catalog(
        write(tmp_path, server("{type: local-process, command: ~nobody-of-that-name/x}")), {}
    )
    assert only(loaded).spec.runtime == LocalProcess(command="~nobody-of-that-name/x")


def test_a_relative_catalog_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, server("{type: local-process, command: ./x}"))
    monkeypatch.chdir(tmp_path)
    entry = only(load_catalog(Path("catalog.yaml"), ENVIRON))
    assert entry.spec.runtime == LocalProcess(command=f"{tmp_path}/x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other: 1", "1: missing required field 'servers'; add it"),
        ("servers: {a: b}", "1 servers: must be a list, but is a mapping; write [] for none"),
        ("servers:", "1 servers: must be a list, but is empty; write [] for none"),
        ("servers: []\nserver: []", "2 server: unknown field 'server'; did you mean 'servers'?"),
        ("servers:\n- {runtime: {type: local-process, command: x}}",
         "2 servers[0]: Server at index 0 missing required field: id"),
        (f"servers:\n- {{id: b, runtime: {LOCAL}}}\n- {{id: ~, runtime: {LOCAL}}}",
         "3 servers[1]: Server at index 1 missing required field: id"),
        ("servers:\n- {id: a}", "2 servers[0]: Server 'a' missing required field: runtime"),
        ("servers:\n- {id: a, runtime: }", "2 servers[0]: Server 'a' missing required field: runtime"),
        ("servers:\n- {id: a, runtime: x}", "2 servers[0].runtime: must be a mapping, but is text; write a mapping"),
        ("servers:\n- {id: a, runtime: {command: x}}",
         "2 servers[0].runtime: Server 'a' missing required field: runtime.type; known are "
         "local-process, remote-http, remote-sse, docker, k8s-job, k8s-service"),
        ("servers:\n- {id: a, runtime: {type: local-proces}}",
         "2 servers[0].runtime.type: Server 'a' has unknown runtime type: local-proces; did you mean 'local-process'?"),
        ("servers:\n- {id: a, runtime: {type: vm}}",
         "2 servers[0].runtime.type: Server 'a' has unknown runtime type: vm; known are "
         "local-process, remote-http, remote-sse, docker, k8s-job, k8s-service"),
        ('servers:\n- {id: a, runtime: {type: "${T}"}}',
         "2 servers[0].runtime.type: Server 'a' has unknown runtime type: ***; known are "
         "local-process, remote-http, remote-sse, docker, k8s-job, k8s-service"),
        ("servers:\n- {id: a, runtime: {type: 5}}", "2 servers[0].runtime.type: is a whole number, not text; quote it"),
        ("servers:\n- 5", "2 servers[0]: Server at index 0 must be a mapping, but is a whole number; write its fields"),
        (f"servers:\n- {{id: 5, runtime: {LOCAL}}}", "2 servers[0].id: is a whole number, not text; quote it"),
        (f"servers:\n- {{id: a b, runtime: {LOCAL}}}",
         "2 servers[0].id: 'a b' is not a valid server ID; use 1 to 64 letters, digits, '.', '_' and '-', starting with a letter or digit"),
        (f'servers:\n- {{id: "x ${{T}}", runtime: {LOCAL}}}',
         "2 servers[0].id: 'x ***' is not a valid server ID; use 1 to 64 letters, digits, '.', '_' and '-', starting with a letter or digit"),
        (f"servers:\n- {{id: a, runtime: {LOCAL}}}\n- {{id: a, runtime: {LOCAL}}}",
         "3 servers[1].id: Duplicate server ID: a (first on line 2); rename one of them"),
        ("servers:\n- &s {id: a, runtime: {type: docker, image: i}}\n- *s",
         "2 servers[0].id: Duplicate server ID: a (first on line 2); rename one of them"),
        (server(LOCAL, ", tag: [x]"), "2 servers[0].tag: unknown field 'tag'; did you mean 'tags'?"),
        (server(LOCAL, ", namespace: Prod"),
         "2 servers[0].namespace: is not a valid namespace; use 1 to 63 lower-case letters, digits and '-'"),
        (server(LOCAL, ", namespace: "), "2 servers[0].namespace: is empty; write a value or remove the line"),
        (server(LOCAL, ", display_name: ' '"), "2 servers[0].display_name: is empty; write a value"),
        (server(LOCAL, ", tags: ['']"), "2 servers[0].tags[0]: is empty; write a value"),
        (server(LOCAL, ", tags: x"), "2 servers[0].tags: must be a list, but is text; write a list"),
        (server(LOCAL, ", era: new"), "2 servers[0].era: must be one of auto, modern, legacy"),
        (server(LOCAL, ", isolation: keys"), "2 servers[0].isolation: must be one of shared, tenant, key, session; did you mean 'key'?"),
        (server(LOCAL, ", env: [a]"), "2 servers[0].env: must be a mapping, but is a list; write a mapping"),
        (server(LOCAL, ", env: {A: 1}"), "2 servers[0].env.A: is a whole number, not text; quote it"),
        (server(LOCAL, ", env: {'A=B': x}"),
         '2 servers[0].env["A=B"]: is not a valid environment variable name; it cannot be empty or hold \'=\' or spaces'),
        (server(LOCAL, ", env: {'': x}"),
         '2 servers[0].env[""]: is not a valid environment variable name; it cannot be empty or hold \'=\' or spaces'),
        (server(LOCAL, ', env: {A: "${NONE}"}'), "2 servers[0].env.A: environment variable NONE is not set; set it"),
        (server(LOCAL, ', env: {A: "a\\0"}'), "2 servers[0].env.A: holds a NUL character; remove it"),
        (server(LOCAL, ", idle_timeout_seconds: -1"), "2 servers[0].idle_timeout_seconds: must be from 0 to 31622400"),
        (server(LOCAL, ", request_timeout_seconds: 0"), "2 servers[0].request_timeout_seconds: must be from 1 to 86400"),
        (server(LOCAL, ", start_timeout_seconds: 3601"), "2 servers[0].start_timeout_seconds: must be from 1 to 3600"),
        (server(LOCAL, ", health_check_interval_seconds: 86401"),
         "2 servers[0].health_check_interval_seconds: must be from 0 to 86400"),
        (server(LOCAL, ", interactive: maybe"), "2 servers[0].interactive: must be true or false, but is text; write true or false"),
        (server("{type: local-process}"), "2 servers[0].runtime: missing required field 'command'; add it"),
        (server("{type: local-process, command: ' '}"), "2 servers[0].runtime.command: is empty; write a value"),
        (server("{type: local-process, command: x, arg: []}"), "2 servers[0].runtime.arg: unknown field 'arg'; did you mean 'args'?"),
        (server("{type: local-process, command: x, args: [8080]}"), "2 servers[0].runtime.args[0]: is a whole number, not text; quote it"),
        (server("{type: docker}"), "2 servers[0].runtime: missing required field 'image'; add it"),
        (server("{type: docker, image: i, cpus: 0}"), "2 servers[0].runtime.cpus: must be from 0.001 to 10000"),
        (server("{type: k8s-job, image: i}"), "2 servers[0].runtime: missing required field 'namespace'; add it"),
        (server("{type: k8s-service, namespace: n, service_name: s}"), "2 servers[0].runtime: missing required field 'port'; add it"),
        (server("{type: k8s-service, namespace: n, service_name: s, port: 0}"), "2 servers[0].runtime.port: must be from 1 to 65535"),
        (server("{type: remote-http}"), "2 servers[0].runtime: missing required field 'url'; add it"),
        (server("{type: remote-http, url: 'https://x'}", ", env: {A: b}"),
         "2 servers[0].env: has no effect on a remote server, which is not started here; remove it"),
    ],
)  # fmt: skip
def test_each_mistake(tmp_path: Path, text: str, message: str) -> None:
    problems = problems_of(tmp_path, text)
    assert message in problems
    assert len(problems) <= 2


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://h/x", "must start with http:// or https://"),
        ("h/x", "must start with http:// or https://"),
        ("https:///x", "has no host; write e.g. https://mcp.example.com/mcp"),
        ("https://:443/x", "has no host; write e.g. https://mcp.example.com/mcp"),
        ("https://h:0/x", "has port 0, which nobody listens on; write the real port"),
        ("https://h:99999/x", "is not a valid URL; check the brackets and the port of the host"),
        ("https://h:x/", "is not a valid URL; check the brackets and the port of the host"),
        ("https://[::1/x", "is not a valid URL; check the brackets and the port of the host"),
        ("https://[zz]/x", "is not a valid URL; check the brackets and the port of the host"),
        ("https://h/x#f", "has a fragment ('#…'), which is never sent; remove it"),
        ("https://h/x y", "holds characters that a URL cannot hold"),
        ("https://hé/", "holds characters that a URL cannot hold"),
        ("https://h\\\\x/", "holds characters that a URL cannot hold"),
        ("https://h/\\n", "holds characters that a URL cannot hold"),
        ("", "holds characters that a URL cannot hold"),
    ],
)
def test_urls(tmp_path: Path, url: str, message: str) -> None:
    (problem,) = problems_of(tmp_path, server(f'{{type: remote-http, url: "{url}"}}'))
    assert problem.startswith(f"2 servers[0].runtime.url: {message}")


@pytest.mark.parametrize(
    ("headers", "where", "message"),
    [
        ("{'A b': c}", '["A b"]', "is not a valid header name; use letters, digits and '-'"),
        ("{'A:': c}", '["A:"]', "is not a valid header name; use letters, digits and '-'"),
        ("{'': c}", '[""]', "is not a valid header name; use letters, digits and '-'"),
        ('{A: "b\\nc"}', ".A", "is not a valid header value"),
        ('{A: "b\\rc"}', ".A", "is not a valid header value"),
        ('{A: "é"}', ".A", "is not a valid header value"),
        ("{A: ' b'}", ".A", "is not a valid header value"),
        ('{A: "${EMPTY}"}', ".A", "environment variable EMPTY is empty; set it"),
        ('{A: "Bearer ${EMPTY}"}', ".A", "environment variable EMPTY is empty; set it"),
        ('{A: "${NONE}"}', ".A", "environment variable NONE is not set; set it"),
        ("{A: 1}", ".A", "is a whole number, not text; quote it"),
        ("{X-A: b, x-a: c}", ".x-a", "is there twice, in different case; remove one of them"),
        ("[a]", "", "must be a mapping, but is a list; write a mapping"),
        *(
            (f"{{{name}: x}}", f".{name}", "is set by the gateway itself; remove it")
            for name in (
                "Host", "content-length", "Transfer-Encoding", "Connection", "Content-Type",
                "Accept", "Mcp-Session-Id", "MCP-Protocol-Version", "Mcp-Method", "Mcp-Name",
            )
        ),
    ],
)  # fmt: skip
def test_headers(tmp_path: Path, headers: str, where: str, message: str) -> None:
    text = server(f"{{type: remote-http, url: 'https://h', headers: {headers}}}")
    (problem,) = problems_of(tmp_path, text)
    assert problem.startswith(f"2 servers[0].runtime.headers{where}: {message}")


def test_headers_may_be_written_as_nothing_and_empty_by_hand(tmp_path: Path) -> None:
    text = server('{type: remote-http, url: "https://h", headers: }')
    assert only(load(tmp_path, text)).spec.runtime == Remote(url="https://h")
    text = server('{type: remote-http, url: "https://h", headers: {A: "", B: "x\\ty z"}}')
    assert only(load(tmp_path, text)).spec.runtime == Remote(
        url="https://h", headers={"A": "", "B": "x\ty z"}
    )


def test_tls(tmp_path: Path) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_text("x")
    full = "{ca: ca.pem, cert: ./cert.pem, key: key.pem}"
    entry = only(load(tmp_path, server(f"{{type: remote-http, url: 'https://h', tls: {full}}}")))
    assert entry.spec.runtime == Remote(
        url="https://h",
        tls=ClientTls(
            ca=f"{tmp_path}/ca.pem", cert=f"{tmp_path}/cert.pem", key=f"{tmp_path}/key.pem"
        ),
    )


@pytest.mark.parametrize(
    ("url", "tls", "message"),
    [
        ("https://h", "{cert: f}", ".tls: 'cert' without 'key'; add the key file of the certificate"),
        ("https://h", "{key: f}", ".tls: 'key' without 'cert'; add the certificate file of the key"),
        ("https://h", "{ca: none}", ".tls.ca: the file does not exist; mend the path or its permissions"),
        ("https://h", "{ca: .}", ".tls.ca: the file is a folder; mend the path or its permissions"),
        ("https://h", "{ca: ''}", ".tls.ca: is an empty path; write the whole path"),
        ("https://h", "x", ".tls: must be a mapping, but is text; write a mapping"),
        ("https://h", "{verify: no}", ".tls.verify: unknown field 'verify'; known are ca, cert, key"),
        ("http://h", "{ca: f}", ".tls: has no effect on an http:// URL; remove it, or write https://"),
    ],
)  # fmt: skip
def test_tls_mistakes(tmp_path: Path, url: str, tls: str, message: str) -> None:
    (tmp_path / "f").write_text("x")
    problems = problems_of(tmp_path, server(f"{{type: remote-http, url: '{url}', tls: {tls}}}"))
    assert problems == [f"2 servers[0].runtime{message}"]


def test_two_credentials_for_one_server(tmp_path: Path) -> None:
    text = server("{type: remote-http, url: 'https://u:p@h', headers: {authorization: x}}")
    assert problems_of(tmp_path, text) == [
        "2 servers[0].runtime.url: holds a user while 'headers' has Authorization; "
        "keep one of the two"
    ]


@pytest.mark.parametrize(
    ("url", "headers", "warned"),
    [
        ("http://h", "{A: b}", True),
        ("http://u@h", "{}", True),
        ("http://192.0.2.1", "{A: b}", True),
        ("http://h", "{}", False),
        ("https://h", "{A: b}", False),
        ("http://localhost", "{A: b}", False),
        ("http://x.localhost", "{A: b}", False),
        ("http://127.0.0.2", "{A: b}", False),
        ("http://[::1]", "{A: b}", False),
    ],
)
def test_credentials_in_the_clear(tmp_path: Path, url: str, headers: str, warned: bool) -> None:
    text = server(f"{{type: remote-http, url: '{url}', headers: {headers}}}")
    messages = [str(warning) for warning in load(tmp_path, text).warnings]
    assert (len(messages) == 1) is warned
    assert all("sends its credentials unencrypted" in message for message in messages)


def test_an_empty_variable_in_env_is_a_warning(tmp_path: Path) -> None:
    loaded = load(tmp_path, server(LOCAL, ', env: {A: "${EMPTY}", B: ""}'))
    assert [warning.message for warning in loaded.warnings] == [
        "environment variable EMPTY is empty; is it meant to be?"
    ]
    assert only(loaded).spec.env == {"A": "", "B": ""}


def test_all_mistakes_of_all_servers_at_once(tmp_path: Path) -> None:
    text = """
servers:
- id: a
  runtime: {type: local-process, args: [1]}
- id: a
  runtime: {type: nope}
  namespace: A
- runtime: {type: remote-http, url: x, headers: {Host: y}}
  request_timeout_seconds: 0
servers: []
"""
    problems = problems_of(tmp_path, text)
    assert [problem.split(":")[0] for problem in problems] == [
        "10 servers",
        "4 servers[0].runtime",
        "4 servers[0].runtime.args[0]",
        "6 servers[1].runtime.type",
        "7 servers[1].namespace",
        "5 servers[1].id",
        "8 servers[2]",
        "8 servers[2].runtime.url",
        "8 servers[2].runtime.headers.Host",
        "9 servers[2].request_timeout_seconds",
    ]


def test_a_mistake_in_something_shared_is_told_once(tmp_path: Path) -> None:
    text = f"""
servers:
- {{id: a, runtime: {LOCAL}, env: &env {{A: 1}}}}
- {{id: b, runtime: {LOCAL}, env: *env}}
"""
    assert problems_of(tmp_path, text) == [
        "3 servers[0].env.A: is a whole number, not text; quote it"
    ]


def test_no_problem_holds_a_value_from_the_environment(tmp_path: Path) -> None:
    text = server(
        '{type: remote-http, url: "${T}", headers: {A: "é${T}"}, tls: {ca: "${T}"}}',
        ', namespace: "${T} ", era: "${T}", idle_timeout_seconds: "${T}", tags: ["${T}", 1]',
    )
    problems = problems_of(tmp_path, text)
    assert len(problems) == 7
    assert "hidden" not in "\n".join(problems)


def test_an_id_by_variable_is_public(tmp_path: Path) -> None:
    entry = only(load(tmp_path, f'servers:\n- {{id: "${{ID}}", runtime: {LOCAL}}}'))
    assert entry.spec.id == entry.shown.id == "by-variable"
    assert entry.secrets == ()


def test_no_repr_holds_a_secret(tmp_path: Path) -> None:
    entry = only(load(tmp_path, server(LOCAL, ', env: {A: "${T}"}')))
    assert "hidden" not in repr(entry) + repr(entry.spec) + repr([entry.spec.runtime])


def test_500_servers(tmp_path: Path) -> None:
    one = '- {{id: s{n}, runtime: {{type: local-process, command: x}}, env: {{A: "${{T}}"}}}}\n'
    text = "servers:\n" + "".join(one.format(n=n) for n in range(500))
    assert len(load(tmp_path, text).snapshot.entries) == 500
