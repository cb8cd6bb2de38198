"""Which worker gets the next request, and what its slot reports to the registry."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.balancer.cost.policies import POLICIES
from qwen_aio.balancer.cost.queue import Compatibility
from qwen_aio.balancer.params import PARAMS
from qwen_aio.core import Capabilities, ContextLimits
from tests.balancer.world import CAPABILITIES, CHAT, SENTIMENT, World, succeed
from tests.fakes import FakeClock


def slow_down(world: World, worker_id: str, slow_ms: float = 2000.0, *, reports: int = 3) -> None:
    """That many reports, after finished work, of that latency."""
    for _ in range(reports):
        world.record(worker_id, completed=world.statuses[worker_id].completed + 1, slow_ms=slow_ms)


# ---- slots ---------------------------------------------------------------------------------------------------------


def test_without_a_worker_no_request_gets_a_slot():
    assert World(asked_for=["a"]).placement.bind(World().queued()) is None


def test_a_worker_has_as_many_slots_as_it_says():
    world = World()
    world.up("a", capacity=3)
    slots = [world.bind() for _ in range(3)]
    assert world.placement.bind(world.queued()) is None
    slots[0].release()
    assert world.placement.bind(world.queued())


@pytest.mark.parametrize(("capacity", "most"), [(8, 6), (4, 3), (2, 2), (1, 1)])
def test_a_quarter_of_the_slots_is_kept_for_decisions(capacity: int, most: int):
    world = World()
    world.up("a", capacity=capacity)
    for _ in range(most):
        world.bind("generation")
    assert world.placement.bind(world.queued("generation")) is None
    for _ in range(capacity - most):
        world.bind("decision")
    assert world.placement.bind(world.queued("decision")) is None


@pytest.mark.parametrize(("capacity", "most"), [(10, 5), (8, 4), (4, 2), (3, 1), (2, 1), (1, 1)])
def test_half_of_the_slots_is_kept_from_long_decisions(capacity: int, most: int):
    world = World()
    world.up("a", capacity=capacity)
    for _ in range(most):
        world.bind(is_long=True)
    assert world.placement.bind(world.queued(is_long=True)) is None
    for _ in range(capacity - most):
        world.bind()
    assert world.placement.bind(world.queued()) is None


@pytest.mark.parametrize(("capacity", "answers", "long"), [(10, 8, 1), (10, 5, 4), (8, 6, 1), (8, 3, 4), (4, 2, 1)])
def test_answers_and_long_decisions_leave_one_slot_to_a_short_one(capacity: int, answers: int, long: int):
    world = World()
    world.up("a", capacity=capacity)
    for _ in range(answers):
        world.bind("generation")
    for _ in range(long):
        world.bind(is_long=True)
    assert world.placement.bind(world.queued(is_long=True)) is None
    assert world.placement.bind(world.queued("generation")) is None
    assert world.placement.has_slot(world.queued())
    world.bind()
    assert not world.placement.has_slot(world.queued())


def test_a_slot_is_given_back_once_however_often_it_is_released():
    world = World()
    world.up("a")
    first, _second = world.bind(), world.bind()
    for _ in range(3):
        first.release()
    assert world.row("a").in_flight == 1


def test_after_quiet_nothing_is_left_of_what_was_in_flight():
    world = World()
    world.up("a", "b")
    slots = [world.bind(work_s=0.1 * number) for number in range(1, 11)]
    for slot in slots:
        succeed(slot)
        slot.release()
    assert world.in_flight() == 0
    assert world.placement.predicted_wait_s(0.0) == 0.0
    assert world.placement.predicted_wait_s(1.0) == pytest.approx(1 / sum(row.speed for row in world.registry.rows()))


def test_what_a_worker_reports_does_not_touch_our_own_count():
    world = World()
    world.up("a")
    world.bind()
    world.record("a", running=0, queue_depth=0)
    assert world.row("a").in_flight == 1


# ---- who suits ------------------------------------------------------------------------------------------------------


def test_a_worker_that_was_tried_is_not_asked_again():
    world = World()
    world.up("a", "b")
    assert {world.bind(tried={"a"}).id for _ in range(4)} == {"b"}
    assert world.placement.bind(world.queued(tried={"a", "b"})) is None


def test_a_worker_is_given_only_tasks_it_has():
    world = World()
    world.up("a", capabilities=replace(CAPABILITIES, tasks={"sentiment": SENTIMENT}))
    assert world.placement.bind(world.queued("generation")) is None
    assert world.placement.bind(world.queued("decision"))


def test_the_rest_of_an_answer_needs_the_same_model_and_the_same_task():
    world = World()
    other_task = replace(CAPABILITIES, tasks={"chat": replace(CHAT, hash="other")})
    world.up("other-task", capabilities=other_task)
    world.up("other-model", model_sha="other")
    world.up("other-precision", precision="fp32")
    world.up("other-kernel", kernel="plain")
    world.up("other-limits", capabilities=replace(CAPABILITIES, context=ContextLimits(1024, 512)))
    queued = world.queued("generation", needs=Compatibility("sha", "int8", "avx2", "hash-c", CAPABILITIES.context))
    assert not world.registry.has_another(queued)
    assert world.placement.bind(queued) is None
    world.up("twin")
    assert world.registry.has_another(queued)
    assert world.placement.bind(queued).id == "twin"


def test_another_worker_counts_although_it_is_full_or_must_wait():
    world = World()
    world.up("a", "b", capacity=1)
    world.bind(tried={"a"})
    assert world.registry.has_another(world.queued(tried={"a"}))
    assert not world.registry.has_another(world.queued(tried={"a", "b"}))


# ---- who is chosen --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("true_speed", [0.1, 1.0, 10.0])
def test_workers_that_are_alike_share_the_work_although_they_are_never_measured_quite_alike(policy, true_speed):
    world, chance = World(policy=policy), Random(2)
    world.up("a", "b", "c")
    counts = Counter()
    for _ in range(300):
        slot = world.bind()
        succeed(slot, service_s=0.11 / true_speed * chance.uniform(0.97, 1.03))
        slot.release()
        counts[slot.id] += 1
    chi_square = sum((counts[worker_id] - 100) ** 2 / 100 for worker_id in "abc")
    assert chi_square < 13.8  # two degrees of freedom: one run in a thousand of a fair die


def test_the_first_result_is_believed_whole_and_until_then_what_is_usual():
    world = World()
    world.up("a", "b")
    assert world.row("b").speed == 1.0
    slot = world.bind(tried={"b"})
    succeed(slot, service_s=0.011)
    slot.release()
    assert [row.speed for row in world.registry.rows()] == pytest.approx([10.0, 10.0])


def test_an_idle_worker_that_was_once_slow_is_tried_again_within_a_minute():
    world = World()
    world.up("a", "b")
    slow = world.bind()
    succeed(slow, service_s=10.0)
    slow.release()
    others = Counter()
    for _ in range(29):
        others[world.serve()] += 1
        world.pass_time(2, beating=["a", "b"])
    assert slow.id not in others
    world.pass_time(2, beating=["a", "b"])
    assert world.bind("generation").id != slow.id  # an answer is no probe
    assert world.serve() == slow.id


def test_a_worker_that_turns_suspect_in_the_moment_it_is_chosen_gets_the_request_all_the_same():
    class Leaping(FakeClock):
        """Time passes between two readings."""

        readings = 0  # until then

        def __call__(self) -> float:
            self.readings -= 1
            if self.readings == 0:
                self.advance(PARAMS.stale_after_s)
            return super().__call__()

    outcomes = set()
    for readings in range(1, 60):
        world = World()
        world.clock.__class__ = Leaping
        world.up("a")
        world.record("a")
        world.clock.readings = readings
        outcomes.add(world.placement.bind(world.queued()) is not None)
    assert outcomes == {True, False}


def test_a_burst_is_spread_although_no_report_has_come_in_between():
    world = World()
    world.up("a", "b", "c")
    assert Counter(world.bind().id for _ in range(24)) == {"a": 8, "b": 8, "c": 8}


def test_the_busier_worker_is_spared():
    world = World()
    world.up("a", "b")
    busy = world.bind("generation", work_s=8.0)
    assert {world.serve() for _ in range(5)} == {"a", "b"} - {busy.id}


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ("weighted", "cost 0.300: queue 0.200 s, jitter x1.50"),
        ("linear", "linear 1.000: queue 0.00, latency 0.00, jitter 1.00"),
        ("least_loaded", "least loaded: 0 in flight"),
        ("round_robin", "round robin"),
        ("random", "random"),
    ],
)
def test_a_slot_says_why_its_worker_was_chosen(policy: str, why: str):
    world = World(policy=policy)
    world.up("a", "b", cpu_jitter=50.0)
    assert world.bind(work_s=0.2).why == why


@pytest.mark.parametrize("policy", POLICIES)
def test_the_only_worker_with_a_free_slot_is_chosen_for_that(policy: str):
    world = World(policy=policy)
    world.up("a", "b", capacity=1)
    world.bind()
    assert world.bind().why == "only free worker"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_request_that_probes_a_worker_says_so(policy: str):
    world = World(policy=policy)
    world.up("a", "b")
    world.fail("a", times=3)
    world.pass_time(1, beating="ab")
    assert world.bind(tried={"b"}).why == "probe of a half-open breaker"
    world = World(policy=policy)
    world.up("a", "b")
    world.pass_time(60, beating="ab")
    assert world.bind("generation").why != "probe of an idle worker"  # an answer is no probe
    assert world.bind().why == "probe of an idle worker"


def test_a_slot_knows_what_to_expect():
    world = World()
    world.up("a")
    factor, slack_s = PARAMS.first_token_factor, PARAMS.first_token_slack_s
    assert world.bind("generation", work_s=2.0).patience_s == pytest.approx(factor * 2.0 + slack_s)
    slot = world.bind("generation", work_s=1.0)
    assert slot.patience_s == pytest.approx(factor * 3.0 + slack_s)  # what is in flight comes before it
    assert slot.usual_gap_s == pytest.approx(1 / PARAMS.decode_tokens_per_s)
    succeed(slot, tokens=10, decode_ms=500.0)
    assert slot.usual_gap_s == pytest.approx(0.05)
    assert (slot.url, slot.compatibility) == (
        "http://a",
        Compatibility("sha", "int8", "avx2", "hash-c", CAPABILITIES.context),
    )


def test_the_usual_gap_is_that_of_the_last_five_answers():
    world = World()
    world.up("a")
    for decode_ms in (9000, 100, 200, 300, 400, 500):
        slot = world.bind("generation")
        succeed(slot, tokens=10, decode_ms=decode_ms)
        slot.release()
    assert world.bind("generation").usual_gap_s == pytest.approx(0.03)


def test_the_rest_of_an_answer_says_nothing_about_the_speed_of_the_whole():
    world = World()
    world.up("a")
    slot = world.bind("generation", needs=Compatibility("sha", "int8", "avx2", "hash-c", CAPABILITIES.context))
    succeed(slot, service_s=0.01, tokens=1000)
    assert world.row("a").speed == 1.0
    assert slot.usual_gap_s == pytest.approx(1 / PARAMS.decode_tokens_per_s)


def test_a_slower_worker_gets_less_work():
    world = World()
    world.up("a", "b")
    for _ in range(10):
        slot = world.bind()
        succeed(slot, service_s=0.4 if slot.id == "a" else 0.1)
        slot.release()
    counts = Counter(world.bind().id for _ in range(10))
    assert counts["b"] >= 3 * counts["a"]


# ---- stalls ---------------------------------------------------------------------------------------------------------


def test_a_worker_from_which_nothing_comes_gets_no_new_work_until_something_does():
    world = World()
    world.up("a")
    slot = world.bind("generation")
    slot.stalled()
    assert (world.health("a"), world.placement.bind(world.queued())) == ("suspect", None)
    world.record("a")
    assert world.health("a") == "suspect"  # its word alone does not do
    slot.progressed()
    assert world.health("a") == "up"
    assert world.events[-2:] == [("a", "call", "up -> suspect"), ("a", "call", "suspect -> up")]


def test_a_request_that_ends_well_lifts_the_suspicion():
    world = World()
    world.up("a")
    slot = world.bind()
    slot.stalled()
    succeed(slot)
    assert world.health("a") == "up"


def test_a_long_decision_may_be_silent_for_as_long_as_short_ones_may_pass_it():
    world = World()
    world.up("a", "b")
    short, long = world.bind(), world.bind(is_long=True)
    assert long.patience_s == pytest.approx(short.patience_s + PARAMS.oldest_first_after_s)


def test_a_stall_is_forgiven_when_no_request_is_left_that_could_prove_it_wrong():
    world = World()
    world.up("a")
    slot = world.bind()
    slot.stalled()
    slot.release()
    assert world.health("a") == "suspect"
    world.record("a")
    assert world.health("a") == "up"


# ---- breaker --------------------------------------------------------------------------------------------------------


def test_a_worker_that_fails_at_once_does_not_attract_work():
    world = World()
    world.up("bad", "good")
    got = Counter()
    for _ in range(100):
        slot = world.bind()
        got[slot.id] += 1
        if slot.id == "bad":
            slot.fail("it answered with 500")
        else:
            succeed(slot)
        slot.release()
        world.clock.advance(0.1)
        world.record("bad")
        world.record("good")
    assert got["bad"] <= 5  # in ten seconds


def test_three_failures_in_a_row_open_the_breaker_and_one_request_may_try_again():
    world = World()
    world.up("a", "b")
    world.fail("a", times=3)
    assert (world.row("a").breaker, world.row("a").cost, world.health("a")) == ("open", None, "up")
    assert world.placement.bind(world.queued(tried={"b"})) is None
    world.pass_time(1)
    trial = world.bind(tried={"b"})
    assert world.placement.bind(world.queued(tried={"b"})) is None
    succeed(trial)
    trial.release()
    assert world.row("a").breaker == "closed"
    assert [change for change in world.changes("a") if "breaker" in change] == [
        "breaker closed -> open",
        "breaker open -> half_open",
        "breaker half_open -> closed",
    ]
    assert "it answered with 500" in next(
        why for *_, change, why in world.recorded if change == "breaker closed -> open"
    )


def test_a_trial_that_is_given_up_leaves_the_way_free_for_the_next():
    world = World()
    world.up("a", "b")
    world.fail("a", times=3)
    world.clock.advance(1)
    world.bind(tried={"b"}).release()
    assert world.placement.bind(world.queued(tried={"b"}))


def test_attempts_that_are_given_up_never_open_a_breaker():
    world = World()
    world.up("a", "b")
    for _ in range(20):
        world.bind().release()
    assert {row.breaker for row in world.registry.rows()} == {"closed"}


@pytest.mark.parametrize(("num_workers", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_at_most_half_of_the_workers_are_shut_out(num_workers: int, most: int):
    world = World()
    names = [f"w{number}" for number in range(num_workers)]
    world.up(*names)
    for name in names:
        world.fail(name, times=3)
    assert sum(row.breaker == "open" for row in world.registry.rows()) == most


def test_workers_that_are_gone_do_not_count_for_the_half():
    world = World()
    world.up("a", "b", "c")
    world.registry.refused("b", "connection refused")
    world.registry.set_admin("c", "maint", force=False)
    world.fail("a", times=10)
    assert world.row("a").breaker == "closed"


# ---- demotion -------------------------------------------------------------------------------------------------------


def test_three_slow_reports_demote_and_two_good_ones_end_it():
    world = World()
    world.up("a", "b")
    slow_down(world, "a", reports=2)
    assert world.health("a") == "up"
    slow_down(world, "a", reports=1)
    assert (world.health("a"), world.row("a").why) == ("demoted", "slow: 2000 ms on average, report after report")
    assert {world.serve() for _ in range(8)} == {"b"}
    slow_down(world, "a", 100.0, reports=1)
    assert world.health("a") == "demoted"
    slow_down(world, "a", 100.0, reports=1)
    assert world.health("a") == "up"
    assert world.changes("a")[2:] == ["up -> demoted", "demoted -> up"]


def test_a_report_without_finished_work_does_not_count():
    world = World()
    world.up("a", "b")
    slow_down(world, "a", reports=1)
    for _ in range(10):
        world.record("a")
        world.read("a")
    assert world.health("a") == "up"


def test_at_most_half_are_demoted_the_slowest_of_them_and_the_rest_say_why_not():
    world = World()
    world.up("a", "b", "c")
    for worker_id, slow_ms in (("a", 2000.0), ("b", 3000.0), ("c", 2500.0)):
        slow_down(world, worker_id, slow_ms)
    assert [world.health(worker_id) for worker_id in "abc"] == ["up", "demoted", "up"]
    assert "at most half" in world.row("a").why
    assert world.changes("a")[2:] == ["up -> demoted", "demoted -> up"]
    assert ("a", "balancer", "demoted -> up") in world.events  # because of b, not of its own report


def test_a_worker_that_is_alone_is_never_demoted():
    world = World()
    world.up("a")
    slow_down(world, "a", reports=10)
    assert world.health("a") == "up"


def test_an_idle_demoted_worker_is_asked_something_short_now_and_then():
    world = World()
    world.up("a", "b")
    slow_down(world, "a")
    world.pass_time(4.5, beating=["a", "b"])
    assert world.serve() == "b"
    world.pass_time(0.5, beating=["a", "b"])
    assert world.bind("generation").id == "b"  # an answer is no probe
    probe = world.bind("decision")
    assert probe.id == "a"
    assert probe.why == "probe of a demoted worker"
    probe.release()
    assert world.serve() == "b"  # the next probe is not due yet
    world.pass_time(10, beating=["a", "b"])
    assert world.bind().id == "a"


def test_a_demoted_worker_that_is_busy_needs_no_probe():
    world = World()
    world.up("a", "b")
    world.bind("generation", tried={"b"})
    slow_down(world, "a")
    world.pass_time(6, beating=["a", "b"])
    assert world.serve() == "b"


# ---- the whole ------------------------------------------------------------------------------------------------------


def test_the_predicted_wait_is_the_work_ahead_over_what_all_do_at_once():
    world = World()
    assert world.placement.predicted_wait_s(1.0) is None
    world.up("a", "b", capacity=2)
    assert world.placement.predicted_wait_s(0.0) == 0.0
    for _ in range(4):
        world.bind("generation", work_s=2.0)
    assert world.placement.predicted_wait_s(0.0) == pytest.approx(8.0 / 4)
    assert world.placement.predicted_wait_s(4.0) == pytest.approx(12.0 / 4)


def test_all_tasks_of_all_workers_are_offered_within_limits_that_every_worker_keeps():
    world = World()
    assert world.registry.capabilities() is None
    world.up("a", capabilities=Capabilities({"chat": CHAT}, ContextLimits(2048, 512), "fake", "a"))
    world.up("b", capabilities=Capabilities({"sentiment": SENTIMENT}, ContextLimits(1024, 1024), "fake", "b"))
    capabilities = world.registry.capabilities()
    assert set(capabilities.tasks) == {"chat", "sentiment"}
    assert (capabilities.context, capabilities.worker) == (ContextLimits(1024, 512), "balancer")
    world.registry.refused("a", "connection refused")
    assert set(world.registry.capabilities().tasks) == {"sentiment"}
    world.registry.refused("b", "connection refused")
    assert set(world.registry.capabilities().tasks) == {"sentiment"}  # the last that was known: requests may wait


@given(st.lists(st.sampled_from(["bind", "succeed", "fail", "release"]), max_size=60))
def test_whatever_becomes_of_slots_the_count_is_that_of_those_not_released(steps: list[str]):
    world = World()
    world.up("a", "b", "c")
    held = []
    for step in steps:
        if step == "bind" and (slot := world.placement.bind(world.queued())) is not None:
            held.append(slot)
        elif held and step != "bind":
            slot = held.pop(0)
            if step == "succeed":
                succeed(slot)
            elif step == "fail":
                slot.fail("it answered with 500")
            slot.release()
        assert world.in_flight() == len(held)
