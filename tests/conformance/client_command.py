"""The client under test is the gateway: ``client_command.py FOLDER WAY URL``.

The suite starts this with its server's URL. With the way ``gateway`` a gateway stands in between,
and what the suite judges is what the gateway sends; with ``alone`` the driver speaks to the suite
itself, which shows what the driver can do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance.fixture_servers import remote_entry
from tests.environments import ROOT, python_of
from tests.gateway import start_gateway

DRIVERS = Path(__file__).parent / "drivers"


@contextmanager
def between(way: str, url: str, folder: Path) -> Iterator[str]:
    if way == "alone":
        yield url
        return
    with start_gateway(folder, {}, {"servers": [remote_entry(url, "suite")]}) as gateway:
        try:
            yield f"http://localhost:{gateway.port}/servers/suite/mcp"
        finally:
            (folder / "gateway.log").write_text("\n".join(gateway.lines), "utf-8")


def drive(url: str) -> int:
    if os.environ["MCP_CONFORMANCE_SCENARIO"] == "http-invalid-tool-headers":
        command = [sys.executable, str(DRIVERS / "credulous_client.py"), url]
    else:
        command = [str(python_of("mcp2")), str(DRIVERS / "sdk_client.py"), url]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main(root: str, way: str, url: str) -> int:
    folder = Path(tempfile.mkdtemp(dir=root))
    with between(way, url, folder) as target:
        return drive(target)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
