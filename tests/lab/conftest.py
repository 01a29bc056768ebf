"""Labs as root and in a user namespace, wherever this machine allows them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pytest_tcpresilience import Lab
from pytest_tcpresilience.errors import FaultUnavailable


def make_lab(own_user: bool = False) -> Lab:
    try:
        return Lab(own_user=own_user)
    except FaultUnavailable as error:
        pytest.skip(error.summary)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with make_lab() as lab:
        yield lab


@pytest.fixture(params=[False, True], ids=["plain", "user_namespace"])
def own_user(request: pytest.FixtureRequest) -> bool:
    """Both ways for root; an unprivileged user has only the second."""
    if not request.param and os.geteuid() != 0:
        pytest.skip("not root")
    return bool(request.param)


@pytest.fixture
def any_lab(own_user: bool) -> Iterator[Lab]:
    """A lab of each kind."""
    with make_lab(own_user) as lab:
        assert lab.in_user_namespace is own_user
        yield lab
