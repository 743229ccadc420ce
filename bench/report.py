"""The table of a measurement, in Markdown."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.load import Round
from bench.parts import ROOT, program


class Start(NamedTuple):
    """How the gateway was when it had just started."""

    start_s: float
    rss_mb: float


class Figures(NamedTuple):
    """Everything that was measured."""

    rounds: Mapping[tuple[str, int], Sequence[Round]]
    """By target and number of connections."""

    starts: Sequence[Start]
    wrong: Mapping[str, int]
    """By target: answers of the exact client that were another's, or not what was asked for."""

    checked: int
    """Answers per target that were looked at."""


def rps(figures: Figures, target: str, connections: int) -> float:
    return median(one.rps for one in figures.rounds[target, connections])


def p50_us(figures: Figures, target: str, connections: int) -> float:
    return median(one.p50_us for one in figures.rounds[target, connections])


def first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else ""


def machine() -> str:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    nginx = first_line(program("nginx"), "-v").removeprefix("nginx version: ")
    kernel = ".".join(platform.release().split(".")[:2])
    wrk = " ".join(first_line(program("wrk"), "--version").split()[:2])
    return (
        f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores, "
        f"Linux {kernel}, Python {platform.python_version()}, {nginx}, {wrk}"
    )


def load_table(figures: Figures, ruler: str, base: str) -> list[str]:
    """One row for each target and number of connections: requests as a ratio to those of ``ruler``,
    time on top of that of ``base``."""
    lines = [
        f"| target | conns | requests/s | of {ruler} "
        "| CPU us | p50 us | added us | p99 us | errors |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for (target, connections), rounds in figures.rounds.items():
        added = p50_us(figures, target, connections) - p50_us(figures, base, connections)
        ratio = rps(figures, target, connections) / rps(figures, ruler, connections)
        lines.append(
            f"| {target} | {connections} | {rps(figures, target, connections):,.0f} "
            f"| {ratio:.2f} | {median(one.cpu_us for one in rounds):.1f} "
            f"| {p50_us(figures, target, connections):,.0f} | {added:+,.0f} "
            f"| {median(one.p99_us for one in rounds):,.0f} | {sum(r.errors for r in rounds)} |"
        )
    return lines


def start_line(starts: Sequence[Start]) -> list[str]:
    if not starts:
        return []
    start_s = median(one.start_s for one in starts)
    rss_mb = median(one.rss_mb for one in starts)
    return [
        f"- Start to first healthy answer: {start_s:.2f} s; resident memory then: {rss_mb:.0f} MB"
        f" (medians of {len(starts)} starts)."
    ]


def summary(figures: Figures) -> list[str]:
    wrong = ", ".join(f"{target} {count}" for target, count in figures.wrong.items())
    return [
        *start_line(figures.starts),
        f"- Wrong answers among {figures.checked:,} calls each with 16 clients: {wrong}.",
        f"- Mean length of an answer with its headers: {lengths(figures)}.",
    ]


def lengths(figures: Figures) -> str:
    """The spread over all rounds; a round with other answers in it stands out."""
    found: dict[str, list[float]] = {}
    for (target, _), rounds in figures.rounds.items():
        found.setdefault(target, []).extend(one.answer_bytes for one in rounds)
    return ", ".join(
        f"{target} {min(each):.0f} to {max(each):.0f} bytes" for target, each in found.items()
    )


def render(figures: Figures, ruler: str, base: str, *, rounds: int, seconds: int) -> str:
    commit = first_line("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    return "\n".join(
        [
            "# Bench",
            "",
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit or 'unknown'}. {machine()}.",
            f"tools/call, medians of {rounds} interleaved rounds of {seconds} s; what is measured"
            " runs on one core, load and upstream on another. Ratios count, not absolute figures."
            " CPU us: processor time of what is measured for each request.",
            "",
            *load_table(figures, ruler, base),
            "",
            *summary(figures),
            "",
        ]
    )
