"""The task of one instance: owns its peer from the handshake to the last byte."""

from __future__ import annotations

import logging
from functools import partial
from typing import Protocol

import anyio

from open_mcp_gateway.errors import EraNotSpoken, GatewayError, UpstreamUnavailable
from open_mcp_gateway.outbound.peer import Peer
from open_mcp_gateway.supervisor.ending import Ending
from open_mcp_gateway.supervisor.instance import Instance
from open_mcp_gateway.supervisor.policy import Act, next_step
from open_mcp_gateway.supervisor.site import Site

logger = logging.getLogger(__name__)

_DEFECT = "Internal error; the log has the details"


class Fate(Protocol):
    """Who decides about an instance. Called from its task and its peer; nothing here may raise."""

    def opened(self, instance: Instance, peer: Peer) -> None: ...

    def start_failed(self, instance: Instance, cause: str) -> None: ...

    def declined(self, instance: Instance, cause: str, spoken: tuple[str, ...]) -> None:
        """It works, but does not speak the era it was to be opened in."""

    def checked(self, instance: Instance, *, alive: bool) -> None: ...

    def lost(self, instance: Instance, cause: str) -> None:
        """It ended by itself, or cannot go on."""

    def end(self, instance: Instance, why: Ending) -> None:
        """Begin to end it now, if that has not begun yet."""

    def gone(self, instance: Instance) -> None:
        """Nothing of it is left."""


async def live(instance: Instance, site: Site, fate: Fate) -> None:
    """From its turn to start until nothing of it is left, also when it never opens."""
    try:
        with instance.scope:
            await instance.turn()
            peer = await _open(instance, site)
            await _serve(instance, peer, site, fate)
    except EraNotSpoken as verdict:
        fate.declined(instance, instance.scrub(verdict.public), verdict.spoken)
    except GatewayError as error:
        fate.start_failed(instance, instance.scrub(error.public))
    except Exception:
        # Boundary: a defect in the life of one server must not end that of the others.
        logger.exception("supervision failed", extra={"server": instance.server_id})
        fate.start_failed(instance, _DEFECT)
    finally:
        fate.gone(instance)


async def _open(instance: Instance, site: Site) -> Peer:
    instance.starting(site.entry)
    limit_s = site.timing().start_timeout_s
    with anyio.move_on_after(limit_s):
        return await site.means.opener(site.entry, instance.key.manner)
    raise UpstreamUnavailable(
        f"Server '{instance.server_id}' did not finish its handshake within {limit_s:g} s"
    )


async def _serve(instance: Instance, peer: Peer, site: Site, fate: Fate) -> None:
    try:
        # It may have opened in the very moment in which its start was given up.
        if instance.ending is None:
            fate.opened(instance, peer)
            peer.on_lost(partial(_lost, instance, site, fate))
            await _watch(instance, site, fate)
    except Exception:
        # Boundary, as above; here the peer has to be closed all the same.
        logger.exception("supervision failed", extra={"server": instance.server_id})
        fate.lost(instance, _DEFECT)
    finally:
        # Only a cancelled fleet comes here without a reason.
        fate.end(instance, Ending.SHUTDOWN)
        with anyio.move_on_after(site.settings.stop_timeout_s, shield=True) as limit:
            await peer.aclose()
        if limit.cancelled_caught:
            logger.error("server did not stop in time", extra={"server": instance.server_id})


def _lost(instance: Instance, site: Site, fate: Fate, error: GatewayError) -> None:
    site.refusals.clear()  # what comes in its place may speak what it did not
    fate.lost(instance, instance.scrub(error.public))


async def _watch(instance: Instance, site: Site, fate: Fate) -> None:
    """Sleep from one due moment to the next until the instance shall end."""
    while instance.ending is None:
        timing = site.timing()
        step = next_step(instance.vitals(), timing, site.now_s())
        match step.act:
            case Act.WAIT:
                await instance.rest(step.until_s)
            case Act.CHECK:
                alive = await instance.probe(timing.check_timeout_s)
                fate.checked(instance, alive=alive)
            case Act.STOP:
                fate.end(instance, instance.leaving or Ending.IDLE)
