"""Who shares an engine, and what becomes of the things of a process that ends.

Owns one set of proxies for each process that names itself. Whoever names no process has
the set that everybody has who does not. Names of two sets never clash, a ``/reset`` is for
one's own, and a set ends with its process: the worker of a test run that was killed can
no longer delete its links.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import trio

from pytest_tcpresilience.engine import farewell
from pytest_tcpresilience.engine.api import Api
from pytest_tcpresilience.engine.http import Request, Response

# The user name of basic authentication by which a process names itself: "pid-1234".
PREFIX = "pid-"


def process_of(user: str) -> int | None:
    """The process that a user name stands for, or ``None`` if it stands for none."""
    number = user.removeprefix(PREFIX)
    if number == user or not number.isascii() or not number.isdecimal() or len(number) > 9:
        return None
    return int(number) or None


class Tenants:
    """The sets of proxies.

    :param nursery: takes the watch over each process.
    :param make: a new, empty set.
    """

    def __init__(self, nursery: trio.Nursery, make: Callable[[], Api]) -> None:
        self._nursery = nursery
        self._make = make
        self.common = make()
        self._own: dict[int, Api] = {}

    async def handle(self, request: Request) -> Response:
        """As the set of whoever asks answers.

        :raises ApiError: as :meth:`.Api.handle`.
        """
        return await self._of(request.user).handle(request)

    def _of(self, user: str) -> Api:
        pid = process_of(user)
        if pid is None or sys.platform != "linux":
            return self.common
        if pid not in self._own:
            try:
                descriptor = os.pidfd_open(pid)
            except OSError:  # it is not of this machine, or has ended, or there is no pidfd
                return self.common
            self._own[pid] = self._make()
            self._nursery.start_soon(self._until_it_ends, pid, descriptor)
        return self._own[pid]

    async def _until_it_ends(self, pid: int, descriptor: int) -> None:
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)
        await farewell.delete_all(self._own.pop(pid).end())

    def end(self) -> list[farewell.Behind]:
        """End all sets.

        :returns: what they leave on other servers.
        """
        sets = [self.common, *self._own.values()]
        return [behind for each in sets for behind in each.end()]
