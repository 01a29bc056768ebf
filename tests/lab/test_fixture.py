"""The fixture: a lab, or a skip that says why not."""

from __future__ import annotations

import sys

import pytest

from pytest_tcpresilience import FaultUnavailable, HarnessError, Lab
from pytest_tcpresilience.lab import channel
from tests.inner import STRICT
from tests.lab.conftest import make_lab

TEST = """
    def test_it(tcp_lab):
        with tcp_lab.server.listen() as listener:
            tcp_lab.client.connect(listener.getsockname()).close()
"""


def test_a_test_gets_a_lab(pytester: pytest.Pytester) -> None:
    make_lab().close()
    pytester.makepyfile(TEST)
    pytester.runpytest_inprocess(*STRICT).assert_outcomes(passed=1)


@pytest.mark.parametrize(("name", "package"), [("ip", "iproute2"), ("nft", "nftables")])
def test_a_machine_without_the_programs_skips(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    # Both are looked for, and one of them is missing whatever this machine has.
    monkeypatch.setattr("shutil.which", lambda each, **_: None if each == name else "/bin/true")
    pytester.makepyfile(TEST)
    result = pytester.runpytest_inprocess(*STRICT, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines([f"*no lab here: no program `{name}` on this machine"])
    with pytest.raises(FaultUnavailable, match=f"install {package}"):
        Lab()


def test_another_system_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(FaultUnavailable, match="no lab here: this is darwin"):
        channel.Channel()


def test_a_kernel_that_refuses_namespaces_skips() -> None:
    """A real refusal: in this lab no further network namespace may be made."""
    with make_lab(own_user=True) as lab:
        script = (
            "import sys\n"
            "open('/proc/sys/user/max_net_namespaces', 'w').write('0')\n"
            "from pytest_tcpresilience import FaultUnavailable, Lab\n"
            "try:\n"
            "    Lab()\n"
            "except FaultUnavailable as error:\n"
            "    print(error)\n"
        )
        said = lab.client.run([sys.executable, "-c", script]).stdout
    assert said.startswith("no lab here: unshare(CLONE_NEWPID | CLONE_NEWNET): No space left")
    assert "a container needs CAP_SYS_ADMIN" in said


def test_a_kernel_that_refuses_user_namespaces_skips() -> None:
    """As where AppArmor or a sysctl forbids them: no privilege, and no way to any."""
    with make_lab(own_user=True) as lab:
        script = (
            "import ctypes, sys\n"
            "open('/proc/sys/user/max_user_namespaces', 'w').write('0')\n"
            "from pytest_tcpresilience import FaultUnavailable, Lab\n"
            "try:\n"
            "    Lab(own_user=True)\n"
            "except FaultUnavailable as error:\n"
            "    print(error)\n"
        )
        said = lab.client.run([sys.executable, "-c", script]).stdout
    assert said.startswith("no lab here: unshare(CLONE_NEWUSER): No space left")
    assert "kernel.apparmor_restrict_unprivileged_userns (Ubuntu)" in said


def test_a_kernel_without_the_kind_of_link_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real refusal, of a kind of link that no kernel has."""
    make_lab().close()
    links = "link add rc type nonesuch\n"
    monkeypatch.setattr("pytest_tcpresilience.lab.plan.router_links", lambda _: links)
    with pytest.raises(FaultUnavailable, match=r"no lab here: .*(Unknown device|not supported)"):
        Lab()


def test_a_batch_that_makes_no_sense_is_no_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    make_lab().close()
    monkeypatch.setattr("pytest_tcpresilience.lab.plan.router_links", lambda _: "nonsense\n")
    with pytest.raises(HarnessError, match="could not set its router up") as caught:
        Lab()
    assert not isinstance(caught.value, FaultUnavailable)


def test_a_sysctl_that_cannot_be_written_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    make_lab().close()
    wanted = {"client": {}, "server": {}, "router": {"net/ipv4/nonesuch": "1"}}
    monkeypatch.setattr("pytest_tcpresilience.lab.plan.SYSCTLS", wanted)
    with pytest.raises(FaultUnavailable, match="no lab here: sysctl: No such file"):
        Lab()
