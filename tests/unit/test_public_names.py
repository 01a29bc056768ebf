"""The front door: its names, what it costs to open, and tables that must not drift apart."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import inspect
import subprocess
import sys

import pytest

import pytest_tcpresilience
from pytest_tcpresilience import Connection, Link
from pytest_tcpresilience.engine import strikes, toxics
from pytest_tcpresilience.faults import DIRECTIONS, FAULTS, READERS, SIDES
from pytest_tcpresilience.kernel import capabilities

PACKAGE = "pytest_tcpresilience"


def _fresh(code: str) -> str:
    """What ``code`` prints in an interpreter that has imported nothing yet."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("name", pytest_tcpresilience.__all__)
def test_every_public_name_resolves(name: str) -> None:
    value = getattr(pytest_tcpresilience, name)
    assert name == "__version__" or value.__name__ == name
    assert name in dir(pytest_tcpresilience)


def test_the_list_of_public_names_is_what_there_is() -> None:
    ours = {
        name
        for name, value in vars(pytest_tcpresilience).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith(PACKAGE)
    }
    assert sorted({*ours, *pytest_tcpresilience._LAZY, "__version__"}) == sorted(
        pytest_tcpresilience.__all__
    )
    assert len(set(pytest_tcpresilience.__all__)) == len(pytest_tcpresilience.__all__)


@pytest.mark.parametrize(("name", "module"), pytest_tcpresilience._LAZY.items())
def test_a_lazy_name_is_the_modules_own(name: str, module: str) -> None:
    found = getattr(importlib.import_module(module), name)
    assert getattr(pytest_tcpresilience, name) is found


def test_another_name_does_not_exist() -> None:
    with pytest.raises(AttributeError, match=f"module '{PACKAGE}' has no attribute 'nonsense'"):
        _ = pytest_tcpresilience.nonsense


@pytest.mark.parametrize("module", [PACKAGE, f"{PACKAGE}.plugin"])
def test_importing_it_is_cheap(module: str) -> None:
    """It is loaded in every run of pytest, whether a test wants a link or not."""
    heavy = "trio", "toxiproxy", "urllib3", "requests", "h11"
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    assert _fresh(code) == "[]"


def test_a_name_is_imported_when_it_is_used() -> None:
    code = (
        f"import sys, {PACKAGE} as p; before = '{PACKAGE}.link' in sys.modules; "
        f"p.Link; print(before, '{PACKAGE}.link' in sys.modules)"
    )
    assert _fresh(code) == "False True"


def test_the_package_is_typed() -> None:
    assert importlib.resources.files(PACKAGE).joinpath("py.typed").is_file()


def test_the_version_is_one() -> None:
    assert pytest_tcpresilience.__version__ == importlib.metadata.version("pytest-tcpresilience")


# --- one table of faults -----------------------------------------------------------------

METHODS = {
    name: inspect.signature(method)
    for name, method in inspect.getmembers(Link, inspect.isfunction)
    if not name.startswith("_") and inspect.signature(method).return_annotation == "Begun"
}


def test_each_fault_is_a_method_of_a_link() -> None:
    assert METHODS.keys() == {row.method for row in FAULTS.values()}


def test_what_can_happen_to_a_connection_is_a_method_of_one() -> None:
    """The same function, so that neither its parameters nor its documentation can differ."""
    for row in FAULTS.values():
        of_connection = getattr(Connection, row.method, None)
        assert of_connection is (
            None if row.listener or row.standing else getattr(Link, row.method)
        )
    for name, kind in toxics.TYPES.items():
        if not kind.below:
            assert getattr(Connection, name) is getattr(Link, name)


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_can_be_scheduled(name: str) -> None:
    row = FAULTS[name]
    parameters = METHODS[row.method].parameters
    if row.standing:
        assert parameters.keys() == {"self", *row.takes}
        return
    assert parameters.keys() == {"self", "when_idle", "after", "after_bytes", *row.takes}
    required = parameters["after"].default is inspect.Parameter.empty
    assert required is row.after_is_its_own
    assert getattr(Link, row.method).__doc__


def test_each_fault_is_a_toxic_below_the_byte_stream() -> None:
    below = {name: kind for name, kind in toxics.TYPES.items() if kind.below}
    assert below.keys() == FAULTS.keys() == strikes.STRIKES.keys()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_and_its_toxic_agree(name: str) -> None:
    fault, kind = FAULTS[name], toxics.TYPES[name]
    assert fault.once is kind.once
    # How sockets share a port is each system's own affair.
    assert fault.needs_linux is (bool(set(kind.needs) - capabilities.PORTABLE) or fault.listener)
    assert fault.listener is kind.listener
    assert ("timeout" in kind.attributes) is fault.after_is_its_own
    assert kind.choices.get("side", SIDES) == (READERS if name == "stop_reading" else SIDES)
    assert kind.choices.get("direction", DIRECTIONS) == DIRECTIONS
    for word in ("side", "direction"):
        assert (word in kind.choices) is (word in fault.takes)
    assert fault.per_flow is kind.per_flow
    assert kind.summary


# The unit of each parameter, which is at the end of its name.
UNITS = {"latency": "_ms", "timeout": "_ms", "jitter": "_ms", "rate": "_kb_s", "bytes": "_bytes"}
UNITS |= {"average_size": "_bytes", "size_variation": "_bytes"}


def test_each_stream_toxic_is_a_method_of_a_link_with_units() -> None:
    for name, kind in toxics.TYPES.items():
        if kind.below:
            continue
        signature = inspect.signature(getattr(Link, name))
        assert signature.return_annotation == "StreamToxic"
        own = [each for each in signature.parameters if each not in ("self", "stream", "toxicity")]
        units = UNITS | {"delay": "_us" if name == "slicer" else "_ms"}
        assert len(own) == len(kind.attributes)
        for parameter, attribute in zip(own, kind.attributes, strict=True):
            assert parameter.endswith(units[attribute])


def test_what_a_toxic_needs_is_probed() -> None:
    needed = {need for kind in toxics.TYPES.values() for need in kind.needs}
    also = [needs for kind in toxics.TYPES.values() for needs in kind.also_needs.values()]
    needed.update(need for needs in also for need in needs)
    assert needed <= capabilities.RECIPES.keys()
    assert capabilities.INTERFACES.keys() == capabilities.RECIPES.keys()
