"""The inner suite, for the tests of this directory."""

from tests.inner import inner

__all__ = ["inner"]
