"""Another process on a store: ``KIND WHERE create|upgrade|transact STEP NAME`` dies at a step
on the way, ``KIND WHERE serve`` writes one key for each line it is given and says when that was
done."""

from __future__ import annotations

import sys
import time
from typing import Literal, cast

from tests.contract.places import Place, a_key, die_at, put, three_at_once, with_next_schema


def main(kind: str, where: str, task: str, *rest: str) -> None:
    place = Place(cast("Literal['sqlite', 'postgres']", kind), where)
    if task == "create":
        die_at(int(rest[0]))
        place.create().close()
        die_at(0)
        return
    if task == "upgrade":
        with_next_schema()
        die_at(int(rest[0]))
        place.open().close()
        die_at(0)
        return
    store = place.open()
    if task == "transact":
        die_at(int(rest[0]))
        store.transact(three_at_once(rest[1]))
        die_at(0)
    else:
        print("ready", flush=True)
        for line in sys.stdin:
            store.transact(put(a_key(line.strip())))
            print(time.monotonic(), flush=True)
    store.close()


main(*sys.argv[1:])
