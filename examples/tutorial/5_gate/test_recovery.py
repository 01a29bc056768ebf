"""A firewall has forgotten the connection. The subscriber comes back, and gets its news."""

from contextlib import closing

from newsfeed import Subscriber

from pytest_tcpresilience import recovers


def test_the_subscriber_comes_back(tcp_link, recording_server):
    link = tcp_link(recording_server.address)
    with closing(Subscriber(link.host, link.port)) as subscriber:
        with recovers(link, within=4, server=recording_server) as recovery:
            link.evict(then="drop")
            recovery.push(b"breaking news")  # to whoever subscribes on a new connection
            assert subscriber.next_message() == b"breaking news\n"
    assert recovery.attempts == 1
