"""What all options have in common: three names, and where a value comes from.

Owns the order ini < environment < command line. What an option means, and which values it
takes, is :mod:`.settings`' and :mod:`.engine_choice`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NamedOption:
    """:param name: from which the ini option, the variable and the flag have theirs."""

    name: str

    @property
    def ini(self) -> str:
        return f"resilience_{self.name}"

    @property
    def flag(self) -> str:
        return f"--resilience-{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return f"RESILIENCE_{self.name.upper()}"

    def given(
        self, ini: Mapping[str, Any], environment: Mapping[str, str], flags: Mapping[str, Any]
    ) -> tuple[str, Any] | None:
        """Where the nearest value came from, and the value; ``None`` when none was given.

        :param ini: values by ini name, ``None`` or "" where not given.
        :param environment: the process's.
        :param flags: values by option name, ``None`` where not given.
        """
        for origin, value in (
            (self.flag, flags.get(self.name)),
            (f"environment variable {self.variable}", environment.get(self.variable)),
            (f"ini option {self.ini}", ini.get(self.ini)),
        ):
            if value is not None and value != "":
                return origin, value
        return None
