"""A small project's own run of pytest, in a process of its own and in the background.

Projects are the examples that have a contract, an ini file or modules of their own. Their runs
mostly wait, so a test begins several and then looks at each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.inner import LEAN

# Each run waits for the kernel, or for the client's own timeout. Nothing else takes long.
RUN_S = 60.0


class Run:
    """One run of the tests in a directory. It begins at once, and ends with the block.

    :param environment: what it has beside this process's own, without that of this run of pytest.
    """

    def __init__(self, project: Path, *args: str, **environment: str) -> None:
        own = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "RESIL"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *LEAN, "-p", "no:cacheprovider", *args],
            cwd=project,
            env={**own, "PYTHONDONTWRITEBYTECODE": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Run:
        return self

    def end(self) -> tuple[int, str]:
        """Its exit status, and what it has printed, once it has ended."""
        output, _ = self._process.communicate(timeout=RUN_S)
        return self._process.returncode, output

    def __exit__(self, *_exception: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
