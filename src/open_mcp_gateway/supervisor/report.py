"""What is reported of a server, by who asks: nobody learns what the use of others did."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from open_mcp_gateway.auth.principal import Holder, Platform
from open_mcp_gateway.supervisor.policy import InstanceKey
from open_mcp_gateway.supervisor.site import Site
from open_mcp_gateway.supervisor.states import ServerState, ServerStatus, overall
from open_mcp_gateway.supervisor.tally import Tally, total


def status_for(site: Site, holder: Holder) -> ServerStatus:
    """What ``holder`` may know: what its own use did, and of what is everybody's by declaration how
    it is; for the platform all of it, summed up."""

    def known(key: InstanceKey) -> bool:
        return site.knows(holder, key)

    tally = _tally(site, holder)
    live = [one for one in site.instances if one.is_open and known(one.key)]
    since_s = min((one.opened_s for one in live if one.state is ServerState.RUNNING), default=None)
    started_at = min((one.started_at for one in live if one.started_at), default=None)
    return ServerStatus(
        state=state_of(site, known),
        started_at=started_at,
        last_activity=_wall(site, tally.last_activity_s),
        request_count=tally.requests,
        error_count=tally.errors,
        uptime_seconds=None if since_s is None else int(site.now_s() - since_s),
        connection_count=len(live),
        last_error=tally.last_error,
    )


def state_of(site: Site, chosen: Callable[[InstanceKey], bool]) -> ServerState:
    """The state of a server as far as the instances under the ``chosen`` keys go."""
    states = [one.state for one in site.instances if chosen(one.key)]
    states += [ServerState.UNHEALTHY for key in site.given_up if chosen(key)]
    return overall(states)


def _tally(site: Site, holder: Holder) -> Tally:
    if isinstance(holder, Platform):
        return total(site.tallies.values(), site.last_error)
    return site.tallies.get(holder) or Tally()


def _wall(site: Site, moment_s: float | None) -> datetime | None:
    if moment_s is None:
        return None
    return site.means.clock.now() - timedelta(seconds=site.now_s() - moment_s)
