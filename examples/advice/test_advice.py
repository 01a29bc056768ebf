"""A gate that needs no network: does the client's keepalive fit where it will run?"""

from pytest_tcpresilience import Keepalive, Middlebox, advise

CLIENT = Keepalive(idle=60, interval=10, probes=3, user_timeout=90)


def test_the_flow_is_held_open_behind_our_load_balancer():
    advice = advise(CLIENT, behind=Middlebox.AWS_NLB, within=120)
    assert advice.ok, str(advice)


def test_the_defaults_of_linux_would_not_do():
    advice = advise("default", behind=Middlebox.AWS_NLB)
    assert advice.held == "no"
    assert advice.forgotten.mechanism == "reset"  # two hours later, on the first probe
    assert advice.cures[0].change == "set TCP_KEEPIDLE 311"  # the timers of Linux may be late
