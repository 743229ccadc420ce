"""Options and what they mean in the bodies of the management API. Pure."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

import msgspec

from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.cli.ways import EXIT_USAGE, Failed
from open_mcp_gateway.clock import Clock
from open_mcp_gateway.config import words as file_words
from open_mcp_gateway.errors import InvalidRequest
from open_mcp_gateway.operations import views
from open_mcp_gateway.operations.requests import period_s

SCOPE: Final = ScopeText.__struct_fields__
NONE: Final = "none"
UNSET: Final = "unset"
NEVER: Final = "never"
NAMES_HELP: Final = (
    f"separated by commas, or the option several times; '{NONE}' or [] is not a single one"
)
LIST_HELP: Final = (
    f"{NAMES_HELP}, '*' is all, and names with commas in them go into JSON: '[\"a,b\"]'"
)
"""Told of every list of patterns."""


def words(option: str, given: Sequence[str] | None) -> list[str] | None:
    """The list that the values of ``option`` write down; None where there are none. Raises Failed.

    What would be nothing by accident, such as an empty variable, is a mistake.
    """
    if given is None:
        return None
    if len(given) == 1 and given[0] == NONE:
        return []
    found: list[str] = []
    for text in given:
        if text.startswith("["):
            parts = _json_list(option, text)
            if not parts and len(given) > 1:
                raise _wrong(option, "has [] among others")
        else:
            parts = [part.strip() for part in text.split(",")]
            if not all(parts) or NONE in parts:
                raise _wrong(option, f"has an empty name in it, or '{NONE}' among others")
        found += parts
    return found


def narrowed(option: str, given: Sequence[str] | None) -> tuple[bool, list[str] | None]:
    """Like ``words`` for a change: whether there is one, and to what; None is no narrowing."""
    if given is None:
        return False, None
    if list(given) == [UNSET]:
        return True, None
    return True, words(option, given)


def scope_of(options: argparse.Namespace) -> dict[str, list[str]]:
    """The scope of a new key. Raises Failed."""
    found = {name: words(_option(name), getattr(options, name)) for name in SCOPE}
    return {name: value for name, value in found.items() if value is not None}


def scope_changes(options: argparse.Namespace) -> dict[str, list[str] | None]:
    """The changes to a scope. Raises Failed."""
    found = {name: narrowed(_option(name), getattr(options, name)) for name in SCOPE}
    return {name: value for name, (changed, value) in found.items() if changed}


def pairs(option: str, given: Sequence[str] | None) -> dict[str, str]:
    """``name=value`` each. Raises Failed."""
    found: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise _wrong(option, "must be name=value")
        found[name] = value
    return found


def when(option: str, text: str) -> str | None:
    """The moment of an option as the API takes it; None for ``never``. Raises Failed."""
    if text == NEVER:
        return None
    seconds = file_words.moment(text)
    if seconds is None:
        raise _wrong(option, f"must be a date, a date with a time, or '{NEVER}'")
    return views.moment(seconds)


def after(option: str, period: str, clock: Clock) -> str | None:
    """The moment that is ``period`` from now on. Raises Failed."""
    try:
        return views.moment(clock.wall() + period_s(period, option))
    except InvalidRequest as error:
        raise Failed(error.public.replace("`", ""), EXIT_USAGE) from None


def _json_list(option: str, text: str) -> list[str]:
    try:
        return msgspec.json.decode(text, type=list[str])
    except msgspec.DecodeError:
        raise _wrong(option, 'begins with [ and so must be a JSON list such as ["a","b"]') from None


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _wrong(option: str, text: str) -> Failed:
    return Failed(f"{option}: {text}", EXIT_USAGE)
