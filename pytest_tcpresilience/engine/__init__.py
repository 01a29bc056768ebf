"""The embedded engine: a process of its own, on trio, that carries links.

It speaks Toxiproxy's HTTP API with toxic types of its own added. It knows no pytest, and
nothing of the tests that use it; everything reaches it through the API.

    __main__   the process: its sockets, its secret, its end
    service    the API on a listening socket, until it is told to end
    http       HTTP/1.1 on trio, with h11 doing the protocol
    api        Toxiproxy's routes and ours, as a table
    bodies     what a request's body may hold: pure
    proxy      a listener, its connections, its toxics
    connection one client, one upstream, and what faults do to the two sockets
    legs       the two sockets of a connection
    pump       moves the bytes of one direction
    toxics     the catalogue of toxic types: pure
    shaping    what stream toxics do to the bytes of one direction: pure
    metrics    bytes through proxies, for Prometheus
    schedule   when a scheduled toxic is due: pure
    watch      the rescue, and the witness that follows the clients' sockets
    events     what happened, in order, on CLOCK_MONOTONIC
"""
