"""Clients of other projects against servers of other projects, over HTTP and over stdio: the tables
of ``docs/clients.md`` are what this run finds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.clients.offers import PAGE as TEXT
from tests.clients.offers import SESSIONS, Offer, offers_in
from tests.clients.page import PAGE, with_table
from tests.clients.programs import Client, Way, clients, look
from tests.process.talk import KEY, Running, run_gateway

pytestmark = [pytest.mark.timeout(300), pytest.mark.peers]

STDIO = str(Path(sys.executable).with_name("gateway-stdio"))
ENV = {"MCP_GATEWAY_API_KEY": KEY}
AT_ONCE = 2
"""Client programs at one time: they give up by clocks of their own, and each starts others."""

OVER_STDIO = ("everything", "time")
"""One server of each kind: sessions only, and both eras."""

CLIENTS = clients()
OF_SERVERS = [
    "everything",
    "filesystem",
    "memory",
    "thinking",
    "time",
    "git",
    "fetch",
    "sqlite",
]
HTTP = [f"http {server}" for server in OF_SERVERS]
PIPES = [f"--{mode} {server}" for mode in ("gateway", "catalog") for server in OVER_STDIO]


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        # Not HTML: the server may hand that to a Node.js program that it has to download first.
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(TEXT)))
        self.end_headers()
        self.wfile.write(TEXT)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal of the tests."""


@pytest.fixture(scope="module")
def offers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Offer]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/page.txt"
        found = offers_in(tmp_path_factory.mktemp("offers"), url)
        yield {offer.id: offer for offer in found}
        server.shutdown()


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, offers: dict[str, Offer]
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("table")
    with run_gateway(folder, [offer.entry for offer in offers.values()]) as gateway:
        for offer in offers.values():
            for revision in offer.revisions:
                gateway.caller.open(offer.id, revision, sessions=revision == SESSIONS)
        yield gateway


def ways_for(client: Client, running: Running, offers: dict[str, Offer]) -> dict[str, Way]:
    headers = {"Authorization": f"Bearer {KEY}"}
    url, catalog = running.gateway.url, str(running.gateway.catalog_path)
    ways = {
        f"http {server}": Way(url=f"{url}/servers/{server}/mcp", headers=headers)
        for server in offers
    }
    if client.program != "mcp-remote":
        for server in OVER_STDIO:
            # By their short names, as the long ones are the inspector's own too.
            ways[f"--gateway {server}"] = Way(command=(STDIO, "-s", server, "-g", url), env=ENV)
            ways[f"--catalog {server}"] = Way(command=(STDIO, "-s", server, "-c", catalog))
    return ways


Cells = dict[tuple[Client, str], "Future[dict[str, str]]"]


@pytest.fixture(scope="module")
def cells(
    tmp_path_factory: pytest.TempPathFactory, running: Running, offers: dict[str, Offer]
) -> Iterator[Cells]:
    """Every client at every server; a client that does one thing a run is run for each."""
    home = tmp_path_factory.mktemp("home")
    found: Cells = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for client in CLIENTS:
            ways = {
                name: (offers[name.split()[1]], way)
                for name, way in ways_for(client, running, offers).items()
            }
            if client.program == "inspector":
                for name, way in ways.items():
                    found[client, name] = pool.submit(look, client, {name: way}, home)
                continue
            # Apart, since each of the latter is a gateway of its own that has to start in time.
            for kind in (HTTP, PIPES):
                some = {name: way for name, way in ways.items() if name in kind}
                if some:
                    looking = pool.submit(look, client, some, home)
                    found |= {(client, name): looking for name in some}
        yield found


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: f"{client.program}-{client.mode}")
def test_client(cells: Cells, client: Client) -> None:
    results = {name: done.result()[name] for (one, name), done in cells.items() if one == client}
    assert results.keys() >= set(HTTP)
    if client.program != "mcp-remote":
        assert results.keys() == {*HTTP, *PIPES}


def test_page_shows_the_results(cells: Cells) -> None:
    def row(client: Client, names: list[str]) -> list[str]:
        return [client.name, client.mode, *(cells[client, one].result()[one] for one in names)]

    over_http = [row(client, HTTP) for client in CLIENTS]
    over_stdio = [row(client, PIPES) for client in CLIENTS if (client, PIPES[0]) in cells]
    committed = PAGE.read_text("utf-8")
    page = with_table(committed, "http", ["Client", "Mode", *OF_SERVERS], over_http)
    head = ["Client", "Mode", *(f"{name.split()[1]} `{name.split()[0]}`" for name in PIPES)]
    page = with_table(page, "stdio", head, over_stdio)
    if committed != page:
        PAGE.write_text(page, "utf-8")
    assert committed == page, f"{PAGE.name} was rewritten from this run: look at it, commit it"
