"""What everything that holds a secret has in common."""

from __future__ import annotations

from typing import NoReturn

from msgspec import Struct


class Secretive(Struct, frozen=True):
    """Holds a secret, or what one could be found from by trying: shown by its kind alone, and
    written nowhere by machinery that writes whatever it meets, such as pickle."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} is not to be written anywhere")
