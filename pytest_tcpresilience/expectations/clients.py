"""Reads the settings of the clients' sockets while a block runs.

Owns the way from a connection's addresses to :class:`Keepalive`: by the kernel's own list
to the process that holds the socket, this one or a child, and through a second descriptor.
Where that way is barred, nothing is claimed.
"""

from __future__ import annotations

from pytest_tcpresilience.errors import UsageError
from pytest_tcpresilience.kernel import owners
from pytest_tcpresilience.kernel.owners import Denied
from pytest_tcpresilience.kernel.sockdiag import Address, SockDiag
from pytest_tcpresilience.tcp.keepalive import Keepalive


def settings_of(client: Address, link: Address) -> Keepalive | None:
    """The settings of the socket at ``client`` that is connected to ``link``.

    :returns: ``None`` when there is no such socket, or it is out of reach.
    """
    try:
        with SockDiag() as diag:
            found = diag.lookup(client, link)
    except OSError:  # no netlink here
        return None
    if found is None:
        return None
    borrowed = owners.borrow_inode(found.inode, found.uid)
    if isinstance(borrowed, Denied):
        return None
    with borrowed:
        try:
            return Keepalive.from_socket(borrowed)
        except UsageError:  # closed at this moment
            return None
