"""Everything the description of the API allows, and much that it does not, asked by Schemathesis.

Statuses and bodies are what is described, no request fails inside, none goes unidentified.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from open_mcp_gateway.keystore.open import create_store
from tests.environments import program_of
from tests.gateway import DEMO, Gateway, start_gateway
from tests.rawhttp import request, send

ROOT: Final = "test-key-description-of-the-root"
BOSS: Final = "test-key-description-of-a-tenant"
RUN_S: Final = 1200

CONFIG: Final = """
[auth.openapi.apiKey]
api_key = "{key}"

[generation]
# Keys come from above; with others beside them every request would be an ambiguous one.
with-security-parameters = false
database = "none"

[parameters]
"path.id" = "demo"

[checks]
# What is allowed may still meet a thing that is not there, or is in another state.
positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409", "412"]
negative_data_rejection.expected-statuses = ["4xx", "5xx"]

# A cursor has to be one that was given out, names have to be printable, a tag of a revision is
# quoted, and one member of a body may exclude another: no schema can say that.
[[operations]]
include-path-regex = "^/(admin/tenants|auth/explain)"
checks.positive_data_acceptance.enabled = false

# A revoked key is still there to be looked at: it is what is left of it.
[[operations]]
include-path-regex = "^/admin/keys"
checks.positive_data_acceptance.enabled = false
checks.use_after_free.enabled = false

# Of MCP itself nothing is described but that it is JSON.
[[operations]]
include-path-regex = "^/(mcp|rpc|servers/.id./(mcp|messages))$"
checks.positive_data_acceptance.enabled = false
checks.negative_data_rejection.enabled = false
"""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    store = tmp_path / "auth.db"
    create_store("sqlite", path=store).close()
    tenant = {"id": "alpha", "namespaces": ["default"], "api_key": BOSS, "role": "tenant-admin"}
    config = {"api_key": ROOT, "auth": {"store": str(store)}, "tenants": [tenant]}
    with start_gateway(tmp_path, config, {"servers": [DEMO]}) as running:
        yield running


def check_finds_nothing(gateway: Gateway, folder: Path, key: str, examples: int) -> None:
    """Fails with all that the run has to say, if it found something."""
    asked = request(b"/openapi.json", (b"X-API-Key", key.encode()))
    answer = send(gateway.host, gateway.port, asked)
    assert answer.status == 200
    (folder / "description.json").write_bytes(answer.body)
    (folder / "schemathesis.toml").write_text(CONFIG.format(key=key))
    done = subprocess.run(
        [
            *(program_of("schemathesis", "schemathesis"), "--config-file", "schemathesis.toml"),
            *("run", "description.json", "--url", gateway.url, "--no-color", "--seed", "20260728"),
            *("--phases", "coverage,fuzzing,stateful", "--max-examples", str(examples)),
            # A stream that does not end is no answer to wait for.
            *("--exclude-path", "/servers/{id}/sse", "--continue-on-failure", "--warnings", "off"),
        ],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=RUN_S,
    )
    failed = [one for one in gateway.log() if "exception" in one]
    if done.returncode != 0 or failed:
        pytest.fail(f"{done.stdout}{done.stderr}{failed}")


@pytest.mark.timeout(300)
def test_nothing_is_found(gateway: Gateway, tmp_path: Path) -> None:
    check_finds_nothing(gateway, tmp_path, ROOT, 10)


@pytest.mark.long("schemathesis, two keys")
@pytest.mark.timeout(RUN_S)
@pytest.mark.parametrize("key", [ROOT, BOSS], ids=["platform", "tenant"])
def test_nothing_is_found_for_long(gateway: Gateway, tmp_path: Path, key: str) -> None:
    check_finds_nothing(gateway, tmp_path, key, 200)


def test_it_would_find_something(gateway: Gateway, tmp_path: Path) -> None:
    """Of a description that promises something else."""
    asked = request(b"/openapi.json", (b"X-API-Key", ROOT.encode()))
    described = json.loads(send(gateway.host, gateway.port, asked).body)
    described["paths"] = {"/whoami": described["paths"]["/whoami"]}
    described["components"]["schemas"]["Caller"]["required"].append("colour")
    (tmp_path / "other.json").write_text(json.dumps(described))
    (tmp_path / "schemathesis.toml").write_text(CONFIG.format(key=ROOT))
    command = [
        *(str(program_of("schemathesis", "schemathesis")), "--config-file", "schemathesis.toml"),
        *("run", "other.json", "--url", gateway.url, "--max-examples", "1"),
    ]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    assert "colour" in done.stdout
