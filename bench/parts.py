"""The processes of a measurement (echo server, nginx, gateway) and what must be installed."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "bench/build"
ECHO = BUILD / "echo"
GATEWAY = ROOT / ".venv/bin/gateway-http"

TESTED_CORE = "0"
LOAD_CORE = "1"
"""Where the load and the echo server run: never on the core of what is measured."""

START_LIMIT_S = 20.0

NGINX = """\
worker_processes 1;
daemon off;
pid {build}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {build}/body;
  proxy_temp_path {build}/proxy;
  fastcgi_temp_path {build}/fastcgi;
  uwsgi_temp_path {build}/uwsgi;
  scgi_temp_path {build}/scgi;
  upstream echo {{
    server 127.0.0.1:{upstream};
    keepalive 256;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://echo;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
  }}
}}
"""

CONFIG = """\
listen_addr: 127.0.0.1:{port}
catalog_path: catalog.yaml
api_key_file: api_key
idle_timeout_seconds: 0
hot_reload: false
log_level: warn
"""

CATALOG = """\
servers:
  - id: stdio
    runtime:
      type: local-process
      command: {taskset}
      args: ["--cpu-list", "{core}", "{echo}", "stdio"]
  - id: http
    runtime:
      type: remote-http
      url: http://127.0.0.1:{upstream}/mcp
  - id: stateless
    runtime:
      type: remote-http
      url: http://127.0.0.1:{stateless}/mcp
"""


class Missing(Exception):
    """Something a measurement needs is not on this machine."""


class Gateway(NamedTuple):
    """A gateway that answers."""

    process: subprocess.Popen[bytes]
    port: int
    key: str
    start_s: float
    """From the start of the process to its first healthy answer."""

    rss_mb: float
    """Resident memory once it answers, no server started yet."""


def program(name: str) -> str:
    """The path of an installed program; nginx lies in sbin, which users often have not in PATH."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise Missing(name)
    return found


def require() -> None:
    """Everything must be there before anything is measured.

    Raises:
        Missing: naming all that is not, and how to get it.
    """
    missing = []
    for name in ("nginx", "wrk", "cc", "taskset"):
        try:
            program(name)
        except Missing:
            missing.append(name)
    if missing:
        raise Missing(
            f"Not installed: {', '.join(missing)}. "
            "On Debian or Ubuntu: apt-get install nginx-light wrk gcc libc6-dev util-linux"
        )
    if (os.cpu_count() or 1) < 2:
        raise Missing("Two cores are needed: one for what is measured, one for the load.")


def build_echo() -> None:
    BUILD.mkdir(exist_ok=True)
    source = ROOT / "bench/echo.c"
    subprocess.run([program("cc"), "-O2", "-o", ECHO, source], check=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def pinned(core: str, *command: str) -> list[str]:
    return [program("taskset"), "--cpu-list", core, *command]


@contextlib.contextmanager
def running(
    command: list[str], *, log: Path | None = None, stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended at the end, by force if it must be. ``log`` takes its stderr."""
    with contextlib.ExitStack() as stack:
        stderr = None if log is None else stack.enter_context(log.open("wb"))
        process = subprocess.Popen(command, stdout=stdout or stderr, stderr=stderr)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def echo_server(*options: str) -> Iterator[int]:
    """The echo server over HTTP; gives its port."""
    command = pinned(LOAD_CORE, str(ECHO), "http", *options)
    with running(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


def wait_for(port: int, process: subprocess.Popen[bytes], path: str) -> float:
    """Seconds until something answers on ``port`` with a status below 500."""
    began = time.perf_counter()
    while time.perf_counter() - began < START_LIMIT_S:
        if process.poll() is not None:
            break
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_LIMIT_S)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", path)
            if connection.getresponse().status < 500:
                return time.perf_counter() - began
        time.sleep(0.002)
    raise RuntimeError(f"{process.args!r} did not come up; see {BUILD}")


@contextlib.contextmanager
def nginx(upstream: int) -> Iterator[tuple[int, int]]:
    """nginx in front of the echo server; gives its port and the process id of its worker."""
    port = free_port()
    config = BUILD / "nginx.conf"
    config.write_text(NGINX.format(build=BUILD, upstream=upstream, port=port))
    command = pinned(TESTED_CORE, program("nginx"), "-e", "stderr", "-c", str(config))
    with running(command, log=BUILD / "nginx.log") as process:
        wait_for(port, process, "/")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        yield port, int(children)


@contextlib.contextmanager
def gateway(upstream: int, stateless: int) -> Iterator[Gateway]:
    """The gateway in front of the echo servers, over both transports, with a key."""
    port, key = free_port(), secrets.token_urlsafe(32)
    key_file = BUILD / "api_key"
    key_file.unlink(missing_ok=True)
    key_file.touch(mode=0o600)
    key_file.write_text(key)
    config = BUILD / "config.yaml"
    config.write_text(CONFIG.format(port=port))
    (BUILD / "catalog.yaml").write_text(
        CATALOG.format(
            taskset=program("taskset"),
            core=LOAD_CORE,
            echo=ECHO,
            upstream=upstream,
            stateless=stateless,
        )
    )
    command = pinned(TESTED_CORE, str(GATEWAY), "--config", str(config))
    with running(command, log=BUILD / "gateway.log") as process:
        start_s = wait_for(port, process, "/health")
        yield Gateway(process, port, key, start_s, resident_mb(process.pid))


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no VmRSS")


def cpu_seconds(pid: int | None) -> float:
    """Processor time a process has used so far. Source: proc(5), utime and stime."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
