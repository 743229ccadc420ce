"""The suite's client scenarios, with the gateway as the client."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tests.conformance.legs import Way
from tests.conformance.suite import Outcome, run_suite
from tests.environments import ROOT


@dataclass(frozen=True)
class ClientLeg:
    """One client scenario on one wire."""

    scenario: str
    wire: str
    successes: int
    """How many checks succeed when every one of them does."""

    way: Way = "gateway"

    def __str__(self) -> str:
        return f"{self.scenario}-{self.wire}-{self.way}"

    def alone(self) -> ClientLeg:
        """What the driver achieves without a gateway."""
        return replace(self, way="alone")


CLIENT_LEGS: Final = (
    ClientLeg("initialize", "2025-06-18", 1),
    ClientLeg("initialize", "2025-11-25", 1),
    ClientLeg("tools_call", "2025-06-18", 2),
    ClientLeg("tools_call", "2025-11-25", 2),
    ClientLeg("elicitation-sep1034-client-defaults", "2025-11-25", 5),
    ClientLeg("sse-retry", "2025-11-25", 3),
    ClientLeg("json-schema-2020-12-preservation", "2025-11-25", 9),
    ClientLeg("tools_call", "2026-07-28", 2),
    ClientLeg("request-metadata", "2026-07-28", 8),
    ClientLeg("sep-2322-client-request-state", "2026-07-28", 5),
    ClientLeg("http-standard-headers", "2026-07-28", 9),
    ClientLeg("http-custom-headers", "2026-07-28", 18),
    ClientLeg("http-invalid-tool-headers", "2026-07-28", 12),
    ClientLeg("json-schema-ref-no-deref", "2026-07-28", 1),
    ClientLeg("json-schema-2020-12-preservation", "2026-07-28", 9),
)
"""All that do not concern OAuth, or skills, which are their reader's business."""


def run_client_leg(leg: ClientLeg, folder: Path) -> Outcome:
    """Run one leg; ``folder`` is its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    launch = [sys.executable, "-m", "tests.conformance.client_command", str(folder), leg.way]
    # The suite runs it where it itself runs, through a shell.
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = f"env PYTHONPATH={shlex.quote(path)} {shlex.join(launch)}"
    arguments = ["--command", command, "--scenario", leg.scenario, "--spec-version", leg.wire]
    return run_suite("client", arguments, folder / "out")
