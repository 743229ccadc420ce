"""The instances of one server that take calls, found by what a caller needs."""

from __future__ import annotations

from open_mcp_gateway.supervisor.instance import Instance
from open_mcp_gateway.supervisor.policy import InstanceKey, suits


class Serving:
    """At most one instance for each key; one key may lead to the instance of another."""

    __slots__ = ("_found", "_own")

    def __init__(self) -> None:
        self._own: dict[InstanceKey, Instance] = {}
        """Each under the key that it was started for."""
        self._found: dict[InstanceKey, Instance] = {}
        """The same, and under every other key that one of them was found to suit."""

    def find(self, key: InstanceKey) -> Instance | None:
        """The one started for ``key``, else one that suits it. On the path of every request."""
        instance = self._found.get(key)
        return self._search(key) if instance is None else instance

    def _search(self, key: InstanceKey) -> Instance | None:
        for own, instance in self._own.items():
            if own.scope == key.scope and suits(key.manner, own.manner, instance.peer.handshake):
                self._found[key] = instance
                return instance
        return None

    def add(self, instance: Instance) -> None:
        """From now on it takes calls, in place of what did so under its key."""
        earlier = self._own.get(instance.key)
        if earlier is not None:
            self.remove(earlier)
        self._own[instance.key] = self._found[instance.key] = instance
        instance.serving = True

    def remove(self, instance: Instance) -> None:
        """It takes no more calls; nothing happens if it took none."""
        if self._own.get(instance.key) is instance:
            del self._own[instance.key]
            instance.serving = False
            self._found = {key: one for key, one in self._found.items() if one is not instance}
