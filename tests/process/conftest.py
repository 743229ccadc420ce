"""Places for key stores, as the tests of the stores have them."""

from tests.contract.conftest import new_place, place, postgres

__all__ = ["new_place", "place", "postgres"]
