"""No spelling that a server in JavaScript resolves leads out of the beginning of a URI."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
from typing import Final

from open_mcp_gateway.auth.stepping import may_step_back
from tests.environments import node

BASES: Final = ("file:///pub/", "https://h/pub/", "note://h/pub/")
ATOMS: Final = (
    *("..", ".", "/", "\\", "\t", "\n", "\r", " ", ";", "?", "#", "a", "\0", "\uff0e", "\u2025"),
    *("%2e", "%2E", "%2f", "%5c", "%09", "%0a", "%00", "%20", "%25", "%252e", "%25252e", "%252f"),
)
RESOLVE: Final = """
const decoded = (text) => { try { return decodeURIComponent(text); } catch { return text; } };
const { posix, win32 } = require("node:path");
const input = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const leaves = ([base, uri]) => {
  for (let text = uri, round = 0; round < 4; round += 1, text = decoded(text)) {
    try { if (!new URL(text).href.startsWith(base)) return true; } catch { }
    const path = text.slice(base.length).split(/[?#]/)[0];
    for (const { normalize } of [posix, win32])
      if (/^[.][.]([/\\\\]|$)/.test(normalize("./" + path))) return true;
  }
  return false;
};
console.log(JSON.stringify(input.filter(leaves)));
"""


def test_nothing_leads_out() -> None:
    rng = random.Random(4)
    rests = ["".join(some) for some in itertools.product(ATOMS, repeat=2)]
    rests += ["".join(rng.choices(ATOMS, k=rng.randrange(3, 8))) for _ in range(20_000)]
    uris = [(base, f"{base}{rest}/secret") for rest in rests for base in BASES]
    command = [str(node()), "-e", RESOLVE]
    done = subprocess.run(
        command, input=json.dumps(uris), capture_output=True, text=True, check=True, timeout=60
    )
    leading_out = [uri for _, uri in json.loads(done.stdout)]
    assert len(leading_out) > 1000
    assert [uri for uri in leading_out if not may_step_back(uri)] == []
    assert not all(may_step_back(uri) for _, uri in uris)
