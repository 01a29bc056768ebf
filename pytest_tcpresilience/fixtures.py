"""The fixtures: a factory of links, and toxiproxy-python's server object.

Owns what begins and ends with a test. Nothing heavy is imported before a fixture is
asked for.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from pytest_tcpresilience.engine_choice import EngineChoice
from pytest_tcpresilience.settings import MARKER, Settings, with_marker

if TYPE_CHECKING:
    from toxiproxy import Toxiproxy

    from pytest_tcpresilience.control import EngineOwner
    from pytest_tcpresilience.lab.lab import Lab
    from pytest_tcpresilience.link import Link
    from pytest_tcpresilience.matrix.matrix import Matrix
    from pytest_tcpresilience.recording import RecordingServer
    from pytest_tcpresilience.tcp.middleboxes import Middlebox
    from pytest_tcpresilience.upstream import UpstreamLike
    from pytest_tcpresilience.virtual.run import VirtualTcp

SETTINGS = pytest.StashKey[Settings]()
CHOICE = pytest.StashKey[EngineChoice]()
SELECTION = pytest.StashKey[Any]()  # of matrices' cells; None for all
OWNER = pytest.StashKey["EngineOwner"]()
FAILED = pytest.StashKey[bool]()
# What a controller of pytest-xdist hands to its workers: the run's shared engine.
HANDED_OVER = "tcpresilience_engine"
VIRTUAL = pytest.StashKey["VirtualTcp"]()


class LinkFactory(Protocol):
    """What the ``tcp_link`` fixture is: call it with the upstream, for as many links as
    the test wants."""

    def __call__(
        self,
        upstream: UpstreamLike,
        *,
        host: str | None = None,
        enabled: bool = True,
        middlebox: Middlebox | None = None,
        client: str = "",
    ) -> Link:
        """A link to ``upstream``.

        :param upstream: ``"host:port"``, ``(host, port)`` or a URL.
        :param host: where the link listens; ``"::1"`` for IPv6. The option ``listen``,
            which is ``"127.0.0.1"``, if not given.
        :param enabled: ``False`` for a link that refuses connections until
            :meth:`.Link.enable`: its port is known, and faults can be armed.
        :param middlebox: a box in the way that forgets each idle flow, as
            :meth:`Link.put_behind` says.
        :param client: what records and reports call whoever uses it; the test's own name
            if not given.
        :raises UsageError: for a malformed upstream.
        :raises HarnessError: when the engine cannot start.
        """
        ...


def _owner(config: pytest.Config) -> EngineOwner:
    from pytest_tcpresilience.control import EngineOwner, Invitation

    if OWNER not in config.stash:
        handed: dict[str, Any] = getattr(config, "workerinput", {})
        invitation = handed.get(HANDED_OVER)
        config.stash[OWNER] = EngineOwner(
            config.stash[CHOICE], invitation and Invitation.from_json(invitation)
        )
    return config.stash[OWNER]


def settings_of(item: pytest.Item) -> Settings:
    """The session's settings with the test's markers.

    :raises UsageError: for a marker that makes no sense.
    """
    settings = item.config.stash[SETTINGS]
    # The closest marker is the first: class and module markers give way to it.
    for mark in reversed(list(item.iter_markers(MARKER))):
        settings = with_marker(settings, mark.args, mark.kwargs)
    return settings


@pytest.fixture
def tcp_link(request: pytest.FixtureRequest) -> Iterator[LinkFactory]:
    """Factory of links: ``link = tcp_link("localhost:5432")``.

    The client under test connects to ``link.host`` and ``link.port`` (or ``link.url``).
    Everything is ended at teardown; a scheduled fault that never hit fails the test.
    """
    from pytest_tcpresilience.link import Link
    from pytest_tcpresilience.report.taking import journal_of
    from pytest_tcpresilience.upstream import Upstream

    settings = settings_of(request.node)
    journal = journal_of(request.node)
    links: list[Link] = []

    choice = request.config.stash[CHOICE]

    def make(
        upstream: UpstreamLike,
        *,
        host: str | None = None,
        enabled: bool = True,
        middlebox: Middlebox | None = None,
        client: str = "",
    ) -> Link:
        parsed = Upstream.parse(upstream)
        owner = _owner(request.config)
        engine = owner.engine(settings.engine_timeout)
        link = Link(
            engine,
            owner.next_name(),
            parsed,
            settings,
            host or choice.listen,
            enabled=enabled,
            # A host of the test's own is where its clients reach it, too.
            advertised=choice.link_host if host is None else "",
            client=client,
            journal=journal,
        )
        links.append(link)
        if middlebox is not None:
            link.put_behind(middlebox)
        return link

    yield make
    # Without a report of the test itself, its setup failed or the session was interrupted.
    _close_all(links, test_failed=request.node.stash.get(FAILED, True))


def _close_all(links: list[Link], *, test_failed: bool) -> None:
    """Close each link, also when closing another one has something to report."""
    reports: list[Exception] = []
    for link in reversed(links):
        try:
            link.close(test_failed=test_failed)
        except Exception as error:
            reports.append(error)
    if reports:
        raise reports[0]


@pytest.fixture
def tcp_matrix(
    request: pytest.FixtureRequest, subtests: pytest.Subtests, tcp_link: LinkFactory
) -> Matrix:
    """Many clients and many faults at once, in the time of the longest single wait.

    ``tcp_matrix(upstream, clients=[Client(…), …], faults=["silent_drop", …], within=…)``
    runs each client with each fault, on links of their own. Each pair is a subtest.
    """
    from pytest_tcpresilience.matrix.matrix import Matrix, terminal_of
    from pytest_tcpresilience.report.taking import journal_of

    config = request.config
    return Matrix(
        tcp_link,
        subtests,
        journal_of(request.node),
        config.stash[SELECTION],
        lambda: terminal_of(config),
    )


@pytest.fixture
def recording_server() -> Iterator[RecordingServer]:
    """An upstream that echoes lines and remembers them: ``tcp_link(recording_server.address)``."""
    from pytest_tcpresilience.recording import RecordingServer

    with RecordingServer() as server:
        yield server


@pytest.fixture
def toxiproxy(request: pytest.FixtureRequest) -> Iterator[Toxiproxy]:
    """toxiproxy-python's ``Toxiproxy`` object, connected to the session's engine.

    With a real Toxiproxy it is that server's. Proxies that the test creates are destroyed
    at teardown; ``link.name`` is the name of a link's proxy.
    """
    engine = _owner(request.config).engine(settings_of(request.node).engine_timeout)
    with engine.toxiproxy() as server:
        yield server


@pytest.fixture
def virtual_tcp(request: pytest.FixtureRequest) -> Iterator[VirtualTcp]:
    """A TCP network for trio in virtual time: two hours of keepalive in milliseconds.

    A plain test calls ``virtual_tcp.run(main)``. An async test of pytest-trio runs on it as
    a whole, and needs the fixture ``autojump_clock`` too.
    """
    from pytest_tcpresilience.report.taking import journal_of
    from pytest_tcpresilience.virtual.run import VirtualTcp

    item = request.node
    virtual = item.stash[VIRTUAL] = VirtualTcp(settings=settings_of(item), journal=journal_of(item))
    test = item.obj
    if inspect.iscoroutinefunction(test):
        item.obj = _inside(virtual, test)
    try:
        yield virtual
    finally:
        item.obj = test
    virtual.close(test_failed=item.stash.get(FAILED, True))


def _inside(virtual: VirtualTcp, test: Any) -> Any:
    @functools.wraps(test)
    async def run(*args: Any, **kwargs: Any) -> None:
        async with virtual:
            await test(*args, **kwargs)

    return run


@pytest.fixture
def tcp_lab() -> Iterator[Lab]:
    """A real network: a client, a router with a firewall, and a server, in namespaces.

    As root, or in a user namespace. Where the machine allows neither, or lacks the programs
    ip and nft, the test is skipped with the reason. Nothing of it outlives the test.
    """
    from pytest_tcpresilience.errors import FaultUnavailable
    from pytest_tcpresilience.lab.lab import Lab

    try:
        lab = Lab()
    except FaultUnavailable as error:
        pytest.skip(error.summary)
    with lab:
        yield lab
