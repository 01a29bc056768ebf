"""The real Toxiproxy, where it is installed."""

from __future__ import annotations

import os
import shutil

import pytest

from pytest_tcpresilience.engine_choice import SERVER_PROGRAM

HOW = (
    "GOBIN=$HOME/go/toxiproxy go install github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0 && "
    "ln -s server $HOME/go/toxiproxy/toxiproxy-server, and put $HOME/go/toxiproxy on PATH"
)


def real_toxiproxy() -> str:
    """The path of the real server; the test is skipped where there is none.

    It is looked up on PATH, or is what ``RESILIENCE_TOXIPROXY`` names. With
    ``TOXIPROXY_WANTED=1`` in the environment its absence is a failure.
    """
    program = shutil.which(os.environ.get("RESILIENCE_TOXIPROXY") or SERVER_PROGRAM)
    if program is not None:
        return program
    if os.environ.get("TOXIPROXY_WANTED"):
        pytest.fail(f"no {SERVER_PROGRAM} on PATH; get it by: {HOW}")
    pytest.skip(f"no {SERVER_PROGRAM} on PATH; get it by: {HOW}")
