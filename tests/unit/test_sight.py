"""What a stack's counters add up to, though daemons are started anew and series come and go."""

from controller.up.sight import Totals

PROBES = "fleetpulse_probes_total"


def test_counters_of_several_daemons_add_up() -> None:
    totals = Totals()
    totals.take("prober", {(PROBES, ("a",)): 3.0, (PROBES, ("b",)): 4.0})
    totals.take("controller", {("fleetpulse_rollouts_total", ()): 1.0})
    assert (totals[PROBES], totals["fleetpulse_rollouts_total"]) == (7, 1)
    assert totals["fleetpulse_nothing_total"] == 0


def test_a_daemon_that_was_started_anew_keeps_what_it_counted_before() -> None:
    totals = Totals()
    totals.take("prober", {(PROBES, ("a",)): 30.0})
    totals.take("prober", {(PROBES, ("a",)): 2.0})
    totals.take("prober", {(PROBES, ("a",)): 5.0})
    assert totals[PROBES] == 35


def test_a_series_that_ended_is_no_reset_of_the_others() -> None:
    """R-67: what a deployment that is gone was probed still happened."""
    totals = Totals()
    totals.take("prober", {(PROBES, ("a",)): 30.0, (PROBES, ("b",)): 10.0})
    totals.take("prober", {(PROBES, ("b",)): 11.0})
    assert totals[PROBES] == 41
