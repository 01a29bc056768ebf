"""Which cases of the contract meet a difference between the engines.

By name of the test function; each is expected to fail with the real Toxiproxy, strictly:
should it pass one day, the difference is gone and its row is wrong.
"""

from __future__ import annotations

MET: dict[str, str] = {
    # test_stream.py
    "test_a_refused_upstream_resets_the_client_and_is_logged": "refusal_becomes_fin",
    "test_an_upstream_without_an_address_resets_the_client_and_is_logged": "refusal_becomes_fin",
    "test_megabytes_cross_in_both_directions_at_once": "half_close_ends_all",
    "test_a_stall_in_mid_stream_loses_nothing": "half_close_ends_all",
    "test_a_client_that_has_finished_sending_still_gets_the_reply": "half_close_ends_all",
    "test_an_upstream_that_has_finished_sending_still_gets_what_comes": "half_close_ends_all",
    "test_an_upstreams_reset_is_a_reset": "reset_becomes_fin",
    "test_a_clients_reset_is_a_reset": "reset_becomes_fin",
    "test_an_end_is_logged_with_its_kind": "reset_becomes_fin",
    "test_a_toxicity_of_0_acts_on_no_connection": "toxicity_is_drawn_again",
    # test_stream_toxics.py
    "test_latency_does_not_slow_a_rate_down": "latency_is_not_updated",
    # test_faults.py
    "test_deleting_a_proxy_under_a_cut_resets_both_ends": "server_is_spared",
    "test_disabling_a_proxy_under_a_cut_resets_both_ends": "server_is_spared",
    "test_when_idle_waits_for_quiet_and_traffic_postpones_it": "server_is_spared",
    "test_a_reset_reaches_both_ends_of_an_idle_connection": "server_is_spared",
    # test_composition.py, test_lift.py, test_enabling.py
    "test_a_reset_breaks_a_silence": "server_is_spared",
    "test_the_first_bytes_ever_are_counted": "server_is_spared",
    # test_targets.py
    "test_a_fault_of_one_connection_is_nobody_elses[evict_reset_both]": "server_is_spared",
    "test_a_fault_of_one_connection_is_nobody_elses[reset]": "server_is_spared",
    "test_a_connection_that_has_closed_is_named_with_its_ending": "not_on_one_connection",
    "test_a_toxic_with_a_timer_ends_its_connection_only": "not_on_one_connection",
    "test_latency_on_one_connection": "not_on_one_connection",
    "test_lifting_a_timeout_of_one_connection_closes_that_one": "not_on_one_connection",
    "test_limit_data_on_one_connection": "not_on_one_connection",
    # test_evict.py
    # test_one_sided.py
    "test_a_client_that_was_left_can_meet_another_fault[hang_up]": "server_is_spared",
    "test_one_side_is_told_and_the_other_stays_as_it_is[server-1-reset-ECONNRESET]": (
        "server_is_spared"
    ),
    "test_an_eviction_that_is_told_reaches_both_ends_at_once[reset_both-ECONNRESET]": (
        "server_is_spared"
    ),
    "test_a_write_after_an_eviction_is_answered_with_a_reset_and_the_other_end_hears_nothing"
    "[server]": "server_is_spared",
}


# They would wait for what does not come, some of them for a minute: not run.
MET_AFTER_A_WAIT = {
    # test_one_way.py, test_lost_close.py
    "test_the_end_of_the_link_is_heard_at_both_ends": "server_is_spared",
    "test_one_direction_vanishes_the_other_arrives_and_neither_is_acknowledged_in_vain": (
        "server_is_spared"
    ),
    "test_an_upstream_that_answers_later_is_met_too": "server_is_spared",
    "test_a_transfer_goes_on_where_it_was_when_a_direction_comes_back": "half_close_ends_all",
    "test_keepalive_of_either_end_notices_and_its_reset_goes_the_way_that_is_left": (
        "server_is_spared"
    ),
    "test_a_firewall_that_drops_what_comes_in_lets_requests_out_and_new_clients_pass": (
        "server_is_spared"
    ),
    "test_the_end_of_the_link_is_heard_by_the_server": "server_is_spared",
    "test_lifting_lets_later_closes_through_and_the_host_no_longer_knows_the_lost_one": (
        "server_is_spared"
    ),
    "test_only_the_servers_keepalive_finds_the_half_open_connection": "server_is_spared",
    # test_stop_reading.py, test_middlebox.py, test_watch.py
    "test_the_window_closes_for_one_side_and_the_other_direction_goes_on": "server_is_spared",
    "test_a_request_after_the_box_has_forgotten_is_answered_with_a_reset_at_both_ends": (
        "server_is_spared"
    ),
    "test_bytes_on_their_way": "server_is_spared",
    "test_the_first_probe_after_an_eviction_is_answered_with_a_reset_at_both_ends": (
        "server_is_spared"
    ),
    "test_reset_peer_resets_an_idle_established_connection": "reset_peer_waits",
    "test_a_reset_while_the_upstream_is_being_dialled_is_no_mistake_of_the_engine": (
        "reset_peer_waits"
    ),
    "test_a_reset_while_the_upstream_is_being_dialled_is_a_reset_for_the_upstream": (
        "server_is_spared"
    ),
    "test_a_silent_drop_is_noticed_by_keepalive_at_both_ends_and_by_nothing_sooner": (
        "server_is_spared"
    ),
    "test_a_silent_drop_of_one_connection_is_noticed_by_its_ends_only": "server_is_spared",
    "test_an_upstream_that_fails_is_who_closed_it": "refusal_becomes_fin",
    "test_by_whom_and_how_a_connection_was_closed[limit_data]": "limit_data_closes_one_way",
    "test_by_whom_and_how_a_connection_was_closed[reset_peer]": "reset_peer_waits",
    "test_by_whom_and_how_a_connection_was_closed[upstream-reset]": "reset_becomes_fin",
}
# Not every time: nobody is surprised by either.
NOW_AND_THEN = {
    "test_a_reset_acts_in_the_middle_of_a_transfer": "server_is_spared",
    "test_lifting_loses_no_byte_of_400_mb_in_either_direction": "half_close_ends_all",
    "test_latencies_add_up_and_can_be_changed": "latency_is_not_updated",
    "test_reset_peer_called_off_before_its_time_loses_nothing": "reset_peer_waits",
    "test_latency_that_comes_and_goes_in_mid_stream_loses_nothing": "toxics_lose_data",
    "test_toxics_that_come_and_go_in_mid_stream_lose_nothing": "toxics_lose_data",
    "test_limit_data_passes_exactly_so_many_and_closes": "limit_data_closes_one_way",
}


def difference_of(name: str, met: dict[str, str]) -> str | None:
    """The difference that a test meets with the real Toxiproxy, or ``None``.

    :param name: with its parameters; those of engine and address family do not count.
    :param met: one of the tables above.
    """
    function, _, rest = name.partition("[")
    parts = [part for part in rest.removesuffix("]").split("-") if part not in IGNORED]
    return met.get(function) or met.get(f"{function}[{'-'.join(parts)}]")


IGNORED = frozenset(("embedded", "toxiproxy", "ipv4", "ipv6"))
