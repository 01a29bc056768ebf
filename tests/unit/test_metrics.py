"""How /metrics reads: Prometheus' text format, with Toxiproxy's names."""

from __future__ import annotations

from pytest_tcpresilience.engine.metrics import Sample, Traffic, render


def test_a_page() -> None:
    traffic = Traffic()
    traffic.received["upstream"] = 3
    traffic.sent["downstream"] = 4
    labels = 'listener="127.0.0.1:1",proxy="db",upstream="db:5432"'
    assert render([Sample("db", "127.0.0.1:1", "db:5432", traffic)]).decode() == (
        "# HELP toxiproxy_proxy_received_bytes_total Bytes read from the sender, by direction.\n"
        "# TYPE toxiproxy_proxy_received_bytes_total counter\n"
        f'toxiproxy_proxy_received_bytes_total{{direction="upstream",{labels}}} 3\n'
        f'toxiproxy_proxy_received_bytes_total{{direction="downstream",{labels}}} 0\n'
        "# HELP toxiproxy_proxy_sent_bytes_total Bytes written to the receiver, by direction.\n"
        "# TYPE toxiproxy_proxy_sent_bytes_total counter\n"
        f'toxiproxy_proxy_sent_bytes_total{{direction="upstream",{labels}}} 0\n'
        f'toxiproxy_proxy_sent_bytes_total{{direction="downstream",{labels}}} 4\n'
    )


def test_a_page_without_proxies_names_its_metrics() -> None:
    assert render([]).count(b"# TYPE ") == 2


def test_a_name_is_escaped() -> None:
    page = render([Sample('a"b\\c\nd', "", "", Traffic())]).decode()
    assert 'proxy="a\\"b\\\\c\\nd"' in page
    assert page.count("\n") == 8
