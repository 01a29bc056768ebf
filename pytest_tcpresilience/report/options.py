"""The options of the gate and of matrices, as rows of a table.

Owns their names and their help. Every session of pytest loads this module, so it imports
nothing of either; what a value means is :mod:`.choice`'s and :mod:`..matrix.selection`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_tcpresilience.options import NamedOption


@dataclass(frozen=True)
class GateOption(NamedOption):
    """:param metavar: what help calls its value.

    :param flag_only: whether neither an ini file nor the environment may set it.
    """

    metavar: str
    default: str
    help: str
    flag_only: bool = False


CONTRACT = GateOption(
    "contract",
    "FILE",
    "",
    "the contract to compare this run with; relative to the ini file that names it, else to "
    "where pytest was started",
)
POLICY = GateOption(
    "policy",
    "FINDING=POLICY,…",
    "changed=fail,new=fail,missing=fail,deselected=warn",
    "for changed, new, missing and deselected entries each: fail, warn or ignore",
)
# A file or a variable that records would turn every run into one that accepts everything.
RECORD = GateOption(
    "record",
    "KINDS",
    "",
    "write into the contract: create (new entries), update (changed ones), prune (missing "
    "ones), with commas between; alone: create,update",
    flag_only=True,
)
OPTIONS = (CONTRACT, POLICY, RECORD)


class CellsOption(NamedOption):
    """The one option of matrices."""

    help = (
        "which cells of each matrix run: parts of their names, with and, or, not and "
        "parentheses; names with spaces in quotes"
    )


CELLS = CellsOption("cells")
