"""Files that nothing comes from: the gateway goes on, reloads again later, and can be stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.process.talk import KEY, odd_server, owned_by, run_gateway, wait_until

HANGING_DRIVE = """
import sys, threading
from open_mcp_gateway import reload
from open_mcp_gateway.cli.main import main

read = reload.Sources.read
def hang_after_the_start(self):
    reload.Sources.read = lambda _: print("hanging", file=sys.stderr) or threading.Event().wait()
    return read(self)
reload.Sources.read = hang_after_the_start
sys.exit(main(["serve", *sys.argv[1:]]))
"""


def test_a_pipe_in_place_of_a_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.touch(0o600)
    file.write_text(KEY + "\n", "ascii")
    config = {"api_key_file": str(file), "hot_reload": False}
    with run_gateway(tmp_path, [odd_server("echo")], config, key=None) as running:
        process = running.gateway.process
        assert running.caller.call("echo", "ping").result == {}
        children = owned_by(running.pid)
        file.unlink()
        os.mkfifo(file)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: running.log("reload refused"), "the pipe was refused")
        assert "is a pipe" in str(running.log("reload refused")[-1]["problems"])
        answer = running.caller.post("/admin/reload")
        assert (answer.status, "is a pipe" in answer.json["message"]) == (500, True)
        file.unlink()
        file.touch(0o600)
        file.write_text(KEY, "ascii")
        assert running.caller.post("/admin/reload").status == 200

        file.unlink()
        os.mkfifo(file)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert children
        wait_until(lambda: not owned_by(running.pid), "no child is left")


def test_a_pipe_is_refused_at_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    for command in (["serve", "--validate"], ["serve"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "open_mcp_gateway", *command],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert "is a pipe" in done.stderr


def test_a_hanging_drive_does_not_keep_the_gateway_from_ending(tmp_path: Path) -> None:
    """What a network drive does that is gone, done by a thread that never comes back."""
    (tmp_path / "config.yaml").write_text("listen_addr: 127.0.0.1:0\nlog_format: json\n", "utf-8")
    (tmp_path / "catalog.yaml").write_text("servers: []\n", "utf-8")
    with subprocess.Popen(
        [sys.executable, "-c", HANGING_DRIVE],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            next(line for line in process.stderr if "is listening" in line)
            process.send_signal(signal.SIGHUP)
            next(line for line in process.stderr if line == "hanging\n")
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()
