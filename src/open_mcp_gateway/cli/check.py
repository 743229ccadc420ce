"""``check``: say everything that is wrong with configuration and catalog, start nothing."""

from __future__ import annotations

import argparse

from open_mcp_gateway.cli.sources import add_source_options, print_warnings, sources_from

HELP = "Check configuration and catalog; exit 2 if there are mistakes."


def add_options(parser: argparse.ArgumentParser) -> None:
    add_source_options(parser)


def run(options: argparse.Namespace) -> int:
    """0 when all is well; every mistake is raised as one InvalidConfig."""
    sources = sources_from(options)
    config, catalog = sources.read()
    print_warnings((*config.warnings, *catalog.warnings))
    source = sources.config_path or "defaults (no config.yaml found)"
    print(f"config:  {source}")
    print(f"catalog: {config.config.catalog_path} ({len(catalog.snapshot.entries)} servers)")
    print("no mistakes found")
    return 0
