"""Measure everything in one run, print the table and keep it in results/latest.md."""

from __future__ import annotations

import argparse
import contextlib
import sys
from functools import partial

from bench.faces import Envelope, Session, Stateless
from bench.load import Round, Target, run_wrk, wrong_answers
from bench.parts import (
    ROOT,
    Missing,
    build_echo,
    echo_server,
    gateway,
    nginx,
    require,
)
from bench.report import Figures, Start, render

CONNECTIONS = (1, 16, 64)
CHECKED_CLIENTS = 16
CHECKED_CALLS = 200
STARTS = 5
WARM_UP_S = 1

Rounds = dict[tuple[str, int], list[Round]]


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (default 5)")
    parser.add_argument("--seconds", type=int, default=2, help="length of one (default 2)")
    parser.add_argument("--no-gateway", action="store_true", help="only nginx and no gateway")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="only these targets, of the first; not kept"
    )
    parser.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS, metavar="N")
    return parser.parse_args(arguments)


def starts(upstream: int, stateless: int) -> list[Start]:
    """Start the gateway a few times over."""
    found = []
    for _ in range(STARTS):
        with gateway(upstream, stateless) as started:
            found.append(Start(started.start_s, started.rss_mb))
    return found


def measure(targets: list[Target], chosen: argparse.Namespace) -> Rounds:
    """Rounds interleaved, so that what else the machine does meets all targets alike."""
    found: Rounds = {}
    for connections in chosen.connections:
        for number in range(chosen.rounds):
            for target in targets:
                print(f"c={connections} round {number + 1} {target.name}", file=sys.stderr)
                one = run_wrk(target, connections, chosen.seconds)
                found.setdefault((target.name, connections), []).append(one)
    return found


def main(arguments: list[str]) -> int:
    chosen = options(arguments)
    try:
        require()
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 1
    build_echo()
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(echo_server())
        stateless = stack.enter_context(echo_server("stateless"))
        targets = [
            Target("direct", upstream),
            Target("nginx", *stack.enter_context(nginx(upstream))),
        ]
        found_starts: list[Start] = []
        if not chosen.no_gateway:
            found_starts = [] if chosen.only else starts(upstream, stateless)
            started = stack.enter_context(gateway(upstream, stateless))
            port, process, key = started.port, started.process.pid, started.key
            numbered = partial(Envelope, unique_ids=True)
            targets += [
                Target("gateway-http", port, process, "http", key),
                Target("gateway-stdio", port, process, "stdio", key),
                Target("numbered-http", port, process, "http", key, numbered("http")),
                Target("session-http", port, process, "http", key, Session(port, "http", key)),
                Target("numbered-stdio", port, process, "stdio", key, numbered("stdio")),
                Target("session-stdio", port, process, "stdio", key, Session(port, "stdio", key)),
                Target("gateway-stateless", port, process, "stateless", key),
                Target("stateless-http", port, process, "stateless", key, Stateless("stateless")),
            ]
        if chosen.only:
            by_name = {target.name: target for target in targets}
            targets = [by_name[name] for name in chosen.only]
        wrong = {}
        for target in targets:
            wrong[target.name] = wrong_answers(target, CHECKED_CLIENTS, CHECKED_CALLS)
            run_wrk(target, CHECKED_CLIENTS, WARM_UP_S)
        figures = Figures(
            rounds=measure(targets, chosen),
            starts=found_starts,
            wrong=wrong,
            checked=CHECKED_CLIENTS * CHECKED_CALLS,
        )
    ruler, base = (targets[0].name,) * 2 if chosen.only else ("nginx", "direct")
    table = render(figures, ruler, base, rounds=chosen.rounds, seconds=chosen.seconds)
    if not chosen.only:
        results = ROOT / "bench/results"
        results.mkdir(exist_ok=True)
        (results / "latest.md").write_text(table)
    print(table)
    failed = sum(wrong.values()) + sum(r.errors for each in figures.rounds.values() for r in each)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
