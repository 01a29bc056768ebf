"""The subscriber waits for news, and the cable is pulled."""

from contextlib import closing

from newsfeed import Subscriber

from pytest_tcpresilience import detects_break


def test_the_subscriber_notices_that_the_server_is_gone(tcp_link, recording_server):
    link = tcp_link(recording_server.address)
    with closing(Subscriber(link.host, link.port)) as subscriber:
        with detects_break(link, within=3):
            link.silent_drop()
            subscriber.receive()
