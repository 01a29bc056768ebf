"""A reset or a FIN that only one side is told of; the other one knows nothing."""

from __future__ import annotations

import pytest

from pytest_tcpresilience.link import Link
from tests.contract.conftest import Connector, LinkMaker
from tests.contract.peers import Pair, RawServer, is_quiet, see

TOLD = [("reset", "ECONNRESET"), ("hang_up", "EOF")]
SIDES = [("client", 0), ("server", 1)]


@pytest.fixture
def link(server: RawServer, make_link: LinkMaker) -> Link:
    return make_link(server.address)


@pytest.fixture
def pair(connect: Connector, link: Link, server: RawServer) -> Pair:
    return connect(link, server)


@pytest.mark.parametrize(("name", "how"), TOLD)
@pytest.mark.parametrize(("side", "told"), SIDES)
def test_one_side_is_told_and_the_other_stays_as_it_is(
    link: Link, pair: Pair, name: str, how: str, side: str, told: int
) -> None:
    fault = getattr(link, name)(side=side)
    assert [hit["connection"] for hit in fault.hits] == [1]
    assert see(pair.ends[told]).what == how
    other = pair.ends[1 - told]
    other.sendall(b"is anybody there?")
    # What the told one does afterwards is not passed on either.
    pair.ends[told].close()
    link.describe_connections()
    assert is_quiet(other)
    other.sendall(b"still nobody?")


@pytest.mark.parametrize("name", ["reset", "hang_up"])
@pytest.mark.parametrize(("side", "listed"), [("client", 0), ("server", 1)])
@pytest.mark.usefixtures("pair")
def test_the_connection_is_listed_while_its_client_has_it(
    link: Link, name: str, side: str, listed: int
) -> None:
    getattr(link, name)(side=side)
    assert len(link.connections) == listed


@pytest.mark.parametrize("name", ["reset", "hang_up"])
@pytest.mark.parametrize(("side", "told"), SIDES)
def test_the_end_of_the_link_ends_the_side_that_was_left(
    link: Link, pair: Pair, name: str, side: str, told: int
) -> None:
    getattr(link, name)(side=side)
    link.close()
    assert see(pair.ends[1 - told]).what == "EOF"


@pytest.mark.parametrize("name", ["reset", "hang_up"])
def test_a_client_that_was_left_can_meet_another_fault(link: Link, pair: Pair, name: str) -> None:
    getattr(link, name)(side="server")
    with link.silent_drop() as drop:
        assert [hit["connection"] for hit in drop.hits] == [1]
    link.reset()
    assert see(pair.client).what == "ECONNRESET"


@pytest.mark.parametrize("name", ["reset", "hang_up"])
def test_new_connections_pass_when_one_side_was_told(
    link: Link, pair: Pair, connect: Connector, server: RawServer, name: str
) -> None:
    getattr(link, name)(side="client")
    connect(link, server).exchange()
    assert is_quiet(pair.server)
