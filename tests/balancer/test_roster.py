"""Which workers there are and how they are: what is heard of them, what people want, what is told."""

from dataclasses import replace

import pytest

from qwen_aio.errors import LastWorker, UnknownWorker
from tests.balancer.pooled import OFFER, START, World

# ---- coming up ------------------------------------------------------------------------------------------------------


def test_a_worker_that_was_asked_for_is_in_the_table_before_anything_is_heard_of_it():
    world = World(asked_for=["qwen-2", "qwen-10"])
    assert [(row.id, row.health, row.cost) for row in world.pool.rows()] == [
        ("qwen-2", "starting", None),
        ("qwen-10", "starting", None),
    ]
    assert world.events == [
        ("qwen-2", "balancer", "unknown -> starting"),
        ("qwen-10", "balancer", "unknown -> starting"),
    ]


def test_a_record_found_at_the_start_proves_nothing_until_it_moves():
    world = World()
    world.record("a")
    world.pool.describe("a", OFFER)
    world.pass_time(5)
    assert world.health("a") == "starting"
    world.record("a")
    assert world.health("a") == "up"
    assert world.changes("a") == ["unknown -> starting", "starting -> up"]


def test_an_answer_proves_that_a_record_is_not_old():
    world = World()
    world.record("a")
    world.pool.describe("a", OFFER)
    world.pool.answered("a")
    assert world.health("a") == "up"


def test_a_worker_takes_no_work_before_it_has_said_what_it_can_do():
    world = World()
    world.record("a")
    world.pool.answered("a")
    assert world.pool.lacks_offer("a")
    assert (world.health("a"), world.pool.bind(world.job())) == ("starting", None)
    world.pool.describe("a", OFFER)
    assert not world.pool.lacks_offer("a")
    assert world.pool.bind(world.job())


def test_a_worker_that_loads_its_model_is_starting_for_as_long_as_it_takes():
    world = World()
    world.record("a", state="starting", capacity=0)
    world.pass_time(120, beating=["a"])
    assert (world.health("a"), world.row("a").why) == ("starting", "it is loading its model")
    world.up("a", state="ready", capacity=8)
    assert world.health("a") == "up"


def test_a_worker_that_died_before_its_first_sign_is_not_immortal():
    world = World()
    world.record("a", state="starting")
    world.pass_time(18)
    assert world.health("a") == "down"


# ---- going down -----------------------------------------------------------------------------------------------------


def test_a_record_that_stands_still_for_six_seconds_makes_its_worker_suspect():
    world = World()
    world.up("a")
    world.pass_time(5.5)
    assert world.health("a") == "up"
    world.pass_time(0.5)
    assert world.health("a") == "suspect"
    assert world.pool.bind(world.job()) is None
    assert world.events[-1] == ("a", "clock", "up -> suspect")
    world.record("a")
    assert world.health("a") == "up"
    assert world.events[-1] == ("a", "report", "suspect -> up")


def test_staleness_counts_at_once_without_waiting_for_a_tick():
    world = World()
    world.up("a")
    world.clock.advance(6)
    assert world.pool.bind(world.job()) is None


def test_a_worker_that_still_answers_while_its_engine_hangs_stays_suspect():
    world = World()
    world.up("a")
    for _ in range(60):
        world.pass_time(2)
        world.pool.answered("a")
    assert world.health("a") == "suspect"
    assert world.changes("a")[-1] == "up -> suspect"


def test_a_worker_of_which_nothing_is_heard_for_three_times_as_long_is_down():
    world = World()
    world.up("a")
    world.pass_time(17.5)
    assert world.health("a") == "suspect"
    world.pass_time(0.5)
    assert (world.health("a"), world.row("a").why) == ("down", "nothing was heard of it for 18 s")
    assert world.changes("a")[-2:] == ["up -> suspect", "suspect -> down"]


def test_while_tokens_flow_a_record_that_stands_still_is_worth_one_warning():
    world = World()
    world.up("a")
    seat = world.bind("generation")
    for _ in range(40):
        world.pass_time(1)
        seat.progressed()
    assert world.health("a") == "up"
    assert world.pool.bind(world.job())
    assert world.changes("a")[2:] == ["record stands still"]
    world.pass_time(6)
    assert world.health("a") == "suspect"


def test_a_worker_that_refuses_connections_is_down_at_once():
    world = World()
    world.up("a", "b")
    world.pool.refused("a", "connection refused")
    assert (world.health("a"), world.row("a").why) == ("down", "connection refused")
    assert {world.bind().id for _ in range(8)} == {"b"}
    world.pool.answered("a")
    assert world.health("a") == "up"


def test_a_record_written_just_before_the_end_does_not_raise_the_dead():
    world = World()
    world.up("a")
    world.pool.refused("a", "connection refused")
    world.clock.advance(0.5)
    world.record("a")
    assert world.health("a") == "down"
    world.clock.advance(2.0)
    world.record("a")
    assert world.health("a") == "up"


@pytest.mark.parametrize(("state", "why"), [("failed", "its engine has failed"), ("draining", "it is shutting down")])
def test_what_a_worker_says_of_its_end_is_believed(state: str, why: str):
    world = World()
    world.up("a")
    seat = world.bind("generation")
    world.record("a", state=state)
    assert (world.health("a"), world.row("a").why, world.row("a").admin) == ("down", why, "ready")
    assert world.pool.bind(world.job()) is None
    assert world.in_flight() == 1  # what runs may end
    seat.release()
    assert world.in_flight() == 0


def test_an_end_is_believed_although_the_pulse_does_not_go_on():
    world = World()
    world.up("a")
    world.record("a", seq=world.statuses["a"].seq, state="failed")
    assert world.health("a") == "down"


def test_a_record_that_comes_late_takes_nothing_back():
    world = World()
    world.up("a")
    early = world.statuses["a"]
    world.record("a", state="draining")
    world.pool.report(early)
    assert world.health("a") == "down"


def test_a_wall_clock_that_jumps_changes_nothing():
    world = World()
    world.up("a")
    world.record("a", wall_time="2099-01-01T00:00:00Z")
    assert world.health("a") == "up"


# ---- lives ----------------------------------------------------------------------------------------------------------


def test_a_worker_that_was_started_again_begins_with_nothing_counted():
    world = World()
    world.up("a", "b")
    world.fail("a", times=3)
    world.restart("a")
    row = world.row("a")
    assert (row.health, row.breaker, row.in_flight, row.generation) == ("starting", "closed", 0, 2)
    assert world.pool.lacks_offer("a")
    assert world.changes("a")[-2:] == ["up -> starting", "breaker open -> closed"]


def test_a_call_of_the_last_life_ends_on_the_last_life():
    world = World()
    world.up("a")
    old = world.bind("generation")
    world.restart("a")
    world.pool.answered("a")
    world.pool.describe("a", OFFER)
    new = world.bind("generation")
    told = len(world.told)
    old.stalled()
    old.fail("connection lost")
    old.release()
    row = world.row("a")
    assert (row.in_flight, row.health, row.cost.failure_factor) == (1, "up", 1.0)
    assert len(world.told) == told
    new.release()
    assert world.in_flight() == 0


def test_a_call_that_outlives_even_the_memory_of_its_worker_ends_in_peace():
    world = World()
    world.up("a", "b")
    old = world.bind("generation", tried={"b"})
    world.restart("a")
    world.statuses.pop("a")
    world.pass_time(700, beating=["b"])
    assert [row.id for row in world.pool.rows()] == ["b"]
    assert world.pool.url("a") == ""
    old.stalled()
    old.fail("connection lost")
    old.release()
    assert world.in_flight() == 0


def test_a_record_of_an_earlier_life_is_ignored():
    world = World()
    world.up("a")
    early = world.statuses["a"]
    world.restart("a")
    world.pool.report(replace(early, seq=500, state="failed"))
    assert (world.row("a").generation, world.health("a")) == (2, "starting")


def test_generations_may_begin_anew_when_the_file_was_deleted():
    world = World()
    world.up("a", generation=7)
    world.record("a", generation=1, start_time=START + 100, pid=99, seq=1)
    assert (world.row("a").generation, world.row("a").pid) == (1, 99)


def test_a_new_worker_is_taken_to_be_as_fast_as_the_others():
    world = World()
    world.up("a")
    for _ in range(30):
        world.serve()
    world.up("b")
    assert world.row("a").speed == pytest.approx(1.1)
    assert world.row("b").speed == pytest.approx(1.1)


def test_a_worker_that_nobody_asked_for_and_that_is_gone_leaves_the_table():
    world = World(asked_for=["a"])
    world.up("a", "b")
    world.pool.refused("a", "connection refused")
    world.pool.refused("b", "connection refused")
    world.pass_time(700)
    assert [row.id for row in world.pool.rows()] == ["a", "b"]  # their records are still there
    world.statuses.clear()
    world.pass_time(6)
    assert [row.id for row in world.pool.rows()] == ["a"]
    assert world.events[-1] == ("b", "clock", "down -> forgotten")


# ---- who has to be asked --------------------------------------------------------------------------------------------


def test_workers_are_asked_themselves_when_the_file_says_too_little():
    world = World(asked_for=["unheard"])
    world.up("a", "b")
    world.pool.expect("far", "http://far")
    assert world.pool.to_ask() == {"far": "http://far"}
    world.pass_time(4, beating=["a"])
    assert world.pool.to_ask() == {"far": "http://far", "b": "http://b"}  # before it becomes suspect
    world.pool.refused("a", "connection refused")
    assert "a" in world.pool.to_ask()
    assert world.pool.urls() == {"http://a", "http://b", "http://far"}
    assert world.pool.url("b") == "http://b"


def test_a_worker_that_answers_while_the_file_cannot_be_written_is_never_suspected():
    world = World()
    world.up("a")
    for _ in range(20):
        world.pass_time(4)
        if "a" in world.pool.to_ask():
            world.record("a")  # what it tells when it is asked
    assert world.changes("a") == ["unknown -> starting", "starting -> up"]


# ---- people's word --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["drain", "maint"])
def test_a_worker_that_was_taken_out_gets_nothing_until_it_is_brought_back(state):
    world = World()
    world.up("a", "b")
    world.pool.set_admin("a", state, force=False)
    world.pass_time(10, beating=["a", "b"])
    world.restart("a")
    world.up("a")
    assert {world.bind().id for _ in range(8)} == {"b"}
    assert (world.row("a").admin, world.row("a").health, world.row("a").cost) == (state, "up", None)
    world.pool.set_admin("a", "ready", force=False)
    assert world.bind().id == "a"
    assert [event for event in world.events if event[1] == "person"] == [
        ("a", "person", f"ready -> {state}"),
        ("a", "person", f"{state} -> ready"),
    ]


def test_saying_the_same_again_is_no_event():
    world = World()
    world.up("a", "b")
    for _ in range(2):
        world.pool.set_admin("a", "maint", force=False)
    assert world.changes("a").count("ready -> maint") == 1


def test_the_last_ready_worker_is_taken_out_only_by_force():
    world = World()
    world.up("a", "b")
    world.pool.refused("b", "connection refused")
    with pytest.raises(LastWorker):
        world.pool.set_admin("a", "drain", force=False)
    assert world.row("a").admin == "ready"
    world.pool.set_admin("b", "maint", force=False)  # nobody loses anything by that
    world.pool.set_admin("a", "drain", force=True)
    world.pool.set_admin("a", "maint", force=False)  # nobody is left to be the last
    assert world.pool.state() == "unavailable"


def test_nobody_decides_about_a_worker_that_is_not_there():
    with pytest.raises(UnknownWorker):
        World().pool.set_admin("ghost", "maint", force=True)


def test_what_was_decided_is_restored_also_for_workers_that_come_later():
    world = World()
    world.up("a")
    world.pool.restore_admin({"b": "maint"})
    world.up("b")
    assert world.row("b").admin == "maint"
    assert world.pool.admin_states() == {"b": "maint"}
    world.pool.restore_admin({})
    assert (world.row("b").admin, world.pool.admin_states()) == ("ready", {})


# ---- how the whole stands -------------------------------------------------------------------------------------------


def test_the_service_is_ok_with_all_degraded_with_fewer_unavailable_with_none():
    world = World(asked_for=["a", "b"])
    assert (world.pool.state(), world.pool.num_ready, world.pool.num_asked_for) == ("unavailable", 0, 2)
    world.up("a")
    assert (world.pool.state(), world.pool.num_ready) == ("degraded", 1)
    world.up("b")
    assert (world.pool.state(), world.pool.num_ready) == ("ok", 2)


def test_while_nobody_is_ready_it_says_who_is_missing_and_why():
    assert "start one with: python app.py --mode worker" in World().pool.absence()
    world = World(asked_for=["qwen-10", "qwen-2"])
    world.record("qwen-2", state="starting")
    world.record("qwen-2", state="starting")
    world.pool.set_admin("qwen-10", "maint", force=False)
    assert world.pool.absence() == "no worker is ready (qwen-2: it is loading its model; qwen-10: taken offline)"


def test_it_is_remembered_when_somebody_was_last_up():
    world = World()
    assert world.pool.has_been_up_within(30)  # the balancer has only just started
    world.pass_time(31)
    assert not world.pool.has_been_up_within(30)
    world.up("a")
    world.pass_time(20, beating=["a"])
    world.pool.refused("a", "connection refused")
    world.pass_time(29)
    assert world.pool.has_been_up_within(30)
    world.pass_time(2)
    assert not world.pool.has_been_up_within(30)


def test_the_table_shows_what_the_worker_reports():
    world = World()
    world.up("a", running=3, queue_depth=1, cpu_percent=93.1, latency_ms_last5=(88.0,), latency_ms_mean5=88.0)
    world.clock.advance(2)
    row = world.row("a")
    assert (row.running, row.queue_depth, row.capacity, row.cpu_percent) == (3, 1, 8, 93.1)
    assert (row.latency_ms_last5, row.latency_ms_mean5, row.status_age_s) == ((88.0,), 88.0, 2.0)
    assert row.uptime_s == world.clock.now
    assert row.cost.total > 0
