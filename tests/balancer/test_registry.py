"""The workers there are: their reports, their administrative states, the recorded events."""

from dataclasses import replace

import pytest

from qwen_aio.errors import LastWorker, UnknownWorker
from tests.balancer.world import CAPABILITIES, START, World, succeed

# ---- coming up ------------------------------------------------------------------------------------------------------


def test_a_worker_that_was_asked_for_is_in_the_table_before_anything_is_heard_of_it():
    world = World(asked_for=["qwen-2", "qwen-10"])
    assert [(row.id, row.health, row.cost) for row in world.registry.rows()] == [
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
    world.registry.describe("a", CAPABILITIES)
    world.pass_time(5)
    assert world.health("a") == "starting"
    world.record("a")
    assert world.health("a") == "up"
    assert world.changes("a") == ["unknown -> starting", "starting -> up"]


def test_an_answer_proves_that_a_record_is_not_old():
    world = World()
    world.record("a")
    world.registry.describe("a", CAPABILITIES)
    world.answer("a")
    assert world.health("a") == "up"


def test_a_worker_takes_no_work_before_it_has_said_what_it_can_do():
    world = World()
    world.record("a")
    world.answer("a")
    assert world.registry.lacks_capabilities("a")
    assert (world.health("a"), world.placement.bind(world.queued())) == ("starting", None)
    world.registry.describe("a", CAPABILITIES)
    assert not world.registry.lacks_capabilities("a")
    assert world.placement.bind(world.queued())


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
    assert world.placement.bind(world.queued()) is None
    assert world.events[-1] == ("a", "clock", "up -> suspect")
    world.record("a")
    assert world.health("a") == "up"
    assert world.events[-1] == ("a", "report", "suspect -> up")


def test_staleness_counts_at_once_without_waiting_for_a_tick():
    world = World()
    world.up("a")
    world.clock.advance(6)
    assert world.placement.bind(world.queued()) is None


def test_a_worker_that_still_answers_while_its_engine_hangs_stays_suspect():
    world = World()
    world.up("a")
    for _ in range(60):
        world.pass_time(2)
        world.answer("a")
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
    slot = world.bind("generation")
    for _ in range(40):
        world.pass_time(1)
        slot.progressed()
    assert world.health("a") == "up"
    assert world.placement.bind(world.queued())
    assert world.changes("a")[2:] == ["record stands still"]
    world.pass_time(6)
    assert world.health("a") == "suspect"


def test_a_worker_that_refuses_connections_is_down_at_once():
    world = World()
    world.up("a", "b")
    world.registry.refused("a", "connection refused")
    assert (world.health("a"), world.row("a").why) == ("down", "connection refused")
    assert {world.bind().id for _ in range(8)} == {"b"}
    world.answer("a")
    assert world.health("a") == "up"


def test_a_record_written_just_before_the_end_does_not_raise_the_dead():
    world = World()
    world.up("a")
    world.registry.refused("a", "connection refused")
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
    slot = world.bind("generation")
    world.record("a", state=state)
    assert (world.health("a"), world.row("a").why, world.row("a").admin) == ("down", why, "ready")
    assert world.placement.bind(world.queued()) is None
    assert world.in_flight() == 1  # what runs may end
    slot.release()
    assert world.in_flight() == 0


def test_an_end_is_believed_although_the_heartbeat_stops():
    world = World()
    world.up("a")
    world.record("a", seq=world.statuses["a"].seq, state="failed")
    assert world.health("a") == "down"


def test_a_record_that_comes_late_takes_nothing_back():
    world = World()
    world.up("a")
    early = world.statuses["a"]
    world.record("a", state="draining")
    world.registry.report(early)
    assert world.health("a") == "down"


def test_a_wall_clock_that_jumps_changes_nothing():
    world = World()
    world.up("a")
    world.record("a", wall_time="2099-01-01T00:00:00Z")
    assert world.health("a") == "up"


# ---- processes ----------------------------------------------------------------------------------------------------------


def test_a_worker_that_was_started_again_begins_with_nothing_counted():
    world = World()
    world.up("a", "b")
    world.fail("a", times=3)
    world.restart("a")
    row = world.row("a")
    assert (row.health, row.breaker, row.in_flight, row.generation) == ("starting", "closed", 0, 2)
    assert world.registry.lacks_capabilities("a")
    assert world.changes("a")[-2:] == ["up -> starting", "breaker open -> closed"]


def test_a_request_of_the_former_process_ends_on_it():
    world = World()
    world.up("a")
    old = world.bind("generation")
    world.restart("a")
    world.answer("a")
    world.registry.describe("a", CAPABILITIES)
    new = world.bind("generation")
    told = len(world.recorded)
    old.stalled()
    old.fail("connection lost")
    old.release()
    row = world.row("a")
    assert (row.in_flight, row.health, row.cost.failure_factor) == (1, "up", 1.0)
    assert len(world.recorded) == told
    new.release()
    assert world.in_flight() == 0


def test_a_request_that_outlives_its_worker_in_the_table_ends_well():
    world = World()
    world.up("a", "b")
    old = world.bind("generation", tried={"b"})
    world.restart("a")
    world.statuses.pop("a")
    world.pass_time(700, beating=["b"])
    assert [row.id for row in world.registry.rows()] == ["b"]
    assert world.registry.url("a") == ""
    old.stalled()
    old.fail("connection lost")
    old.release()
    assert world.in_flight() == 0


def test_a_report_of_an_earlier_process_is_ignored():
    world = World()
    world.up("a")
    early = world.statuses["a"]
    world.restart("a")
    world.registry.report(replace(early, seq=500, state="failed"))
    assert (world.row("a").generation, world.health("a")) == (2, "starting")


# ---- whose id -------------------------------------------------------------------------------------------------------

HOURS = 3600.0
# How a later process may look beside an earlier one: the clock was set, the file deleted, or the pid given out again.
ODDITIES = [
    {"generation": 1, "start_time": START - 8 * HOURS, "pid": 99},
    {"generation": 1, "start_time": START - 8 * HOURS, "pid": 1},
    {"generation": 7, "start_time": START - 8 * HOURS, "pid": 99},
    {"generation": 1, "start_time": START, "pid": 99},
    {"generation": 8, "start_time": START + 8 * HOURS, "pid": 1},
]
odd = pytest.mark.parametrize("identity", ODDITIES, ids=lambda identity: "-".join(map(str, identity.values())))


def say_farewell(world: World, state: str) -> None:
    world.record("a", state=state)


def refuse(world: World, _: str) -> None:
    world.registry.refused("a", "connection refused")


def fall_silent(world: World, _: str) -> None:
    world.pass_time(700)


@odd
@pytest.mark.parametrize(
    ("end", "how"), [(say_farewell, "draining"), (say_farewell, "failed"), (refuse, ""), (fall_silent, "")]
)
def test_a_worker_that_is_back_and_answers_is_taken_back_whatever_was_heard_before(identity, end, how):
    world = World(asked_for=["a"])
    world.up("a", generation=7)
    end(world, how)
    world.restart("a", **identity)
    world.registry.describe("a", CAPABILITIES)
    assert (world.health("a"), world.row("a").pid) == ("up", identity["pid"])
    assert world.placement.bind(world.queued())


@odd
def test_a_worker_that_is_back_and_only_writes_is_taken_back_when_its_record_moves(identity):
    world = World()
    world.up("a", generation=7)
    world.record("a", state="draining")
    world.record("a", **identity, seq=1, state="ready")
    assert world.health("a") == "down"  # that record may be old
    assert ("a", "http://a") in world.registry.to_ask()
    world.pass_time(2, beating=["a"])
    assert (world.health("a"), world.row("a").why) == ("starting", "it has not said yet what it can do")


@odd
def test_a_restart_that_was_not_noticed_is_seen_by_the_answer(identity):
    world = World()
    world.up("a", generation=7)
    old = world.bind("generation")
    world.restart("a", **identity)
    assert (world.row("a").pid, world.row("a").in_flight, world.health("a")) == (identity["pid"], 0, "starting")
    old.release()


@odd
def test_a_worker_that_is_back_at_another_address_is_found_there(identity):
    world = World()
    world.up("a", generation=7)
    world.clock.advance(1)
    world.record("a", **identity, seq=1, url="http://new")
    assert world.registry.to_ask() == {("a", "http://a"), ("a", "http://new")}
    world.answer("a")
    assert world.row("a").url == "http://a"  # well, for all that is known
    world.registry.refused("a", "connection refused", url="http://a")
    assert (world.row("a").url, world.row("a").pid) == ("http://new", identity["pid"])
    assert world.registry.url("a") == "http://new"


@odd
def test_two_workers_under_one_id_do_not_take_it_from_each_other(identity):
    """A second cluster in a status folder that was deleted under the first one."""
    world = World()
    world.up("a", generation=7)
    ours = world.statuses["a"]
    theirs = replace(ours, **identity, url="http://b")
    for seq in range(ours.seq + 1, 60):
        world.clock.advance(1)
        for status in (replace(ours, seq=seq), replace(theirs, seq=seq)):
            world.registry.report(status)
            world.registry.answered(status, asked_at=world.clock.now - 0.01)
        world.registry.tick()
        assert (world.health("a"), world.row("a").url) == ("up", "http://a")
    world.registry.report(replace(ours, seq=60, state="draining"))
    assert (world.health("a"), world.row("a").url) == ("starting", "http://b")
    world.registry.describe("a", CAPABILITIES)
    assert world.health("a") == "up"


@odd
def test_a_report_without_a_process_never_gets_the_id(identity):
    world = World()
    world.up("a", generation=7)
    world.pass_time(20)
    assert world.health("a") == "down"
    world.record("a", **identity, seq=500, url="http://dead")
    world.registry.refused("a", "connection refused", url="http://dead")
    world.pass_time(60)
    assert (world.row("a").url, world.row("a").generation) == ("http://a", 7)
    assert world.row("a").why.startswith("nothing was heard of it")


def test_a_claim_that_is_not_repeated_is_dropped():
    world = World()
    world.up("a")
    ours = world.statuses["a"]
    world.record("a", pid=99, url="http://b")
    world.statuses["a"] = ours
    world.pass_time(6, beating=["a"])
    assert world.registry.urls() == {"http://a"}
    assert world.registry.to_ask() == set()


@pytest.mark.parametrize("state", ["failed", "draining", "starting"])
def test_what_a_worker_answers_overrules_a_record_that_it_never_wrote(state):
    world = World()
    world.up("a")
    own = world.statuses["a"]
    world.record("a", seq=own.seq + 1000, state=state)
    assert world.health("a") in ("down", "starting")
    world.clock.advance(1)
    world.registry.answered(own, asked_at=world.clock.now)
    for _ in range(3):  # it is still in the file
        world.pass_time(0.5)
        assert world.health("a") == "up"
    world.statuses["a"] = own
    world.pass_time(30, beating=["a"])
    assert world.health("a") == "up"
    world.pass_time(6)
    assert world.health("a") == "suspect"


def test_an_answer_to_an_earlier_question_does_not_overrule_what_was_read_since():
    world = World()
    world.up("a")
    world.clock.advance(1)
    asked_at, ready = world.clock.now, world.statuses["a"]
    world.clock.advance(0.5)
    world.record("a", state="draining")
    world.registry.answered(ready, asked_at=asked_at)
    assert world.health("a") == "down"
    world.restart("a")
    world.registry.answered(ready, asked_at=asked_at)  # the next process has its address by now
    assert world.row("a").generation == 2


@pytest.mark.parametrize("state", ["drain", "maint"])
def test_a_worker_that_is_taken_back_stays_what_people_made_it(state):
    world = World()
    world.up("a", "b", generation=7)
    world.registry.set_admin("a", state, force=False)
    world.record("a", state="draining")
    world.restart("a", generation=1, start_time=START - 8 * HOURS)
    world.registry.describe("a", CAPABILITIES)
    assert (world.row("a").health, world.row("a").admin) == ("up", state)
    assert {world.serve() for _ in range(8)} == {"b"}


def test_a_worker_that_gets_its_id_back_finds_its_breaker_as_it_was():
    world = World()
    world.up("a", "b")
    world.fail("a", times=3)
    ours = world.statuses["a"]
    world.record("a", pid=99, url="http://c")
    world.answer("a")
    world.registry.refused("a", "connection refused", url="http://a")
    assert world.row("a").breaker == "closed"
    world.registry.answered(ours, asked_at=world.clock.now)
    world.registry.refused("a", "connection refused", url="http://c")
    assert (world.row("a").url, world.row("a").health, world.row("a").breaker) == ("http://a", "up", "open")


def test_a_new_worker_is_taken_to_be_as_fast_as_the_others():
    world = World()
    world.up("a")
    for _ in range(30):
        world.serve()
    world.up("b")
    assert world.row("a").speed == pytest.approx(1.1)
    assert world.row("b").speed == pytest.approx(1.1)


def test_an_unnamed_worker_that_is_gone_leaves_the_table():
    world = World(asked_for=["a"])
    world.up("a", "b")
    world.registry.refused("a", "connection refused")
    world.registry.refused("b", "connection refused")
    world.pass_time(700)
    assert [row.id for row in world.registry.rows()] == ["a", "b"]  # their records are still there
    world.statuses.clear()
    world.pass_time(6)
    assert [row.id for row in world.registry.rows()] == ["a"]
    assert world.events[-1] == ("b", "clock", "down -> forgotten")


# ---- who has to be asked --------------------------------------------------------------------------------------------


def test_workers_are_asked_themselves_when_the_file_says_too_little():
    world = World(asked_for=["unheard"])
    world.up("a", "b")
    world.registry.expect("far", "http://far")
    assert world.registry.to_ask() == {("far", "http://far")}
    world.pass_time(4, beating=["a"])
    assert world.registry.to_ask() == {("far", "http://far"), ("b", "http://b")}  # before it becomes suspect
    world.registry.refused("a", "connection refused")
    assert ("a", "http://a") in world.registry.to_ask()
    assert world.registry.urls() == {"http://a", "http://b", "http://far"}
    assert world.registry.url("b") == "http://b"


def test_a_worker_that_answers_while_the_file_cannot_be_written_is_never_suspected():
    world = World()
    world.up("a")
    for _ in range(20):
        world.pass_time(4)
        if world.registry.to_ask():
            world.record("a")  # what it reports when it is asked
    assert world.changes("a") == ["unknown -> starting", "starting -> up"]


# ---- people's word --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["drain", "maint"])
def test_a_worker_that_was_taken_out_gets_nothing_until_it_is_brought_back(state):
    world = World()
    world.up("a", "b")
    world.registry.set_admin("a", state, force=False)
    world.pass_time(10, beating=["a", "b"])
    world.restart("a")
    world.up("a")
    assert {world.bind().id for _ in range(8)} == {"b"}
    assert (world.row("a").admin, world.row("a").health, world.row("a").cost) == (state, "up", None)
    world.registry.set_admin("a", "ready", force=False)
    assert world.bind().id == "a"
    assert [event for event in world.events if event[1] == "person"] == [
        ("a", "person", f"ready -> {state}"),
        ("a", "person", f"{state} -> ready"),
    ]


def test_saying_the_same_again_is_no_event():
    world = World()
    world.up("a", "b")
    for _ in range(2):
        world.registry.set_admin("a", "maint", force=False)
    assert world.changes("a").count("ready -> maint") == 1


def test_the_last_ready_worker_is_taken_out_only_by_force():
    world = World()
    world.up("a", "b")
    world.registry.refused("b", "connection refused")
    with pytest.raises(LastWorker):
        world.registry.set_admin("a", "drain", force=False)
    assert world.row("a").admin == "ready"
    world.registry.set_admin("b", "maint", force=False)  # no request is lost by that
    world.registry.set_admin("a", "drain", force=True)
    world.registry.set_admin("a", "maint", force=False)  # no ready worker is left to be the last
    assert world.registry.state() == "unavailable"


def test_an_unknown_worker_has_no_administrative_state():
    with pytest.raises(UnknownWorker):
        World().registry.set_admin("ghost", "maint", force=True)


def test_what_was_decided_is_restored_also_for_workers_that_come_later():
    world = World()
    world.up("a")
    world.registry.restore_admin({"b": "maint"})
    world.up("b")
    assert world.row("b").admin == "maint"
    assert world.registry.admin_states() == {"b": "maint"}
    world.registry.restore_admin({})
    assert (world.row("b").admin, world.registry.admin_states()) == ("ready", {})


# ---- how the whole stands -------------------------------------------------------------------------------------------


def test_the_service_is_ok_with_all_degraded_with_fewer_unavailable_with_none():
    world = World(asked_for=["a", "b"])
    assert (world.registry.state(), world.registry.num_ready, world.registry.num_asked_for) == ("unavailable", 0, 2)
    world.up("a")
    assert (world.registry.state(), world.registry.num_ready) == ("degraded", 1)
    world.up("b")
    assert (world.registry.state(), world.registry.num_ready) == ("ok", 2)


def test_while_no_worker_is_ready_it_says_which_are_missing_and_why():
    assert "start one with: python app.py --mode worker" in World().registry.absence()
    world = World(asked_for=["qwen-10", "qwen-2"])
    world.record("qwen-2", state="starting")
    world.record("qwen-2", state="starting")
    world.registry.set_admin("qwen-10", "maint", force=False)
    assert world.registry.absence() == "no worker is ready (qwen-2: it is loading its model; qwen-10: in maintenance)"


def test_it_is_remembered_when_a_worker_was_last_ready():
    world = World()
    assert world.registry.was_ready_within(30)  # the balancer has only just started
    world.pass_time(31)
    assert not world.registry.was_ready_within(30)
    world.up("a")
    world.pass_time(20, beating=["a"])
    world.registry.refused("a", "connection refused")
    world.pass_time(29)
    assert world.registry.was_ready_within(30)
    world.pass_time(2)
    assert not world.registry.was_ready_within(30)


def test_the_table_shows_what_the_worker_reports():
    world = World()
    world.up("a", running=3, queue_depth=1, cpu_percent=93.1, latency_ms_last5=(88.0,), latency_ms_mean5=88.0)
    world.clock.advance(2)
    row = world.row("a")
    assert (row.running, row.queue_depth, row.capacity, row.cpu_percent) == (3, 1, 8, 93.1)
    assert (row.latency_ms_last5, row.latency_ms_mean5, row.status_age_s) == ((88.0,), 88.0, 2.0)
    assert row.uptime_s == world.clock.now
    assert row.cost.total > 0


def test_an_explanation_says_nothing_about_the_speed_of_its_worker():
    """Its usage is that of the decision alone, its time that of several."""
    world = World()
    world.up("a")
    world.serve()
    before = world.row("a").speed
    queued = world.queued()
    slot = world.placement.bind(replace(queued, request=replace(queued.request, explain=True)))
    succeed(slot, service_s=100.0)
    slot.release()
    assert world.row("a").speed == before
    succeed(slow := world.bind(), service_s=100.0)
    slow.release()
    assert world.row("a").speed < before
