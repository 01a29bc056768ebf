"""What the subscriber does, whatever becomes of its connection."""

from newsfeed import Subscriber

from pytest_tcpresilience import Client

SUBSCRIBER = Client(
    "subscriber",
    connect=lambda link: Subscriber(link.host, link.port),
    wait=lambda subscriber: subscriber.receive(),
)


def test_whatever_becomes_of_the_connection(tcp_matrix, recording_server):
    tcp_matrix(
        recording_server.address,
        clients=[SUBSCRIBER],
        faults=["silent_drop", "reset", "hang_up", "stall"],
        within=3,
        activity="wait",
        unaware="stall",  # keepalive cannot see that; it is written down, and not forgotten
    )
