"""``python -m pytest_tcpresilience``."""

from __future__ import annotations

import sys

from pytest_tcpresilience.cli import main

if __name__ == "__main__":
    sys.exit(main())
