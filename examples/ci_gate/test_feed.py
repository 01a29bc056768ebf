"""What the users of the feed are promised, whatever happens to the connection.

Without keepalive the read timeout keeps the promise, and all of these tests pass. The
contract says that it was keepalive that kept it, and fails.
"""

from __future__ import annotations

from feed import Feed

from pytest_tcpresilience import Link, detects_break

PROMISED_S = 8.0


def test_the_servers_host_dies(link: Link, feed: Feed) -> None:
    with detects_break(link, within=PROMISED_S):
        link.silent_drop()
        feed.next()


def test_the_server_crashes(link: Link, feed: Feed) -> None:
    with detects_break(link, within=PROMISED_S, raises=ConnectionResetError):
        link.reset()
        feed.next()


def test_the_server_is_shut_down(link: Link, feed: Feed) -> None:
    with detects_break(link, within=PROMISED_S):
        link.hang_up()
        feed.next()
