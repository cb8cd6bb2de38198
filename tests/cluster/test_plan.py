"""Ports that do not collide, threads that are divided, and the command of every child."""

from __future__ import annotations

import argparse
import os
import sys

import pytest

from qwen_aio.cli import cluster
from qwen_aio.cluster.plan import forkserver_command, plan_cluster, worker_command
from qwen_aio.config import Settings
from qwen_aio.errors import InvalidSettings
from qwen_aio.machine.cores import usable_cores
from qwen_aio.startup.flags import settings_from


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))


def typed(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cluster.add_arguments(parser)
    return parser.parse_args(flags)


def settings(*flags: str) -> Settings:
    return settings_from(typed(*flags))


def test_by_default_the_page_has_the_port_of_single_mode_and_the_balancer_its_own():
    plan = plan_cluster(settings())
    assert plan.page_url == "http://127.0.0.1:7860"
    assert plan.balancer_url == "http://127.0.0.1:8000"
    assert len(plan.workers) == min(3, usable_cores())


def test_several_workers_share_their_weights_where_the_system_can_fork():
    can_fork = hasattr(os, "fork") and sys.platform != "darwin"
    assert plan_cluster(settings("--workers", "2")).shares_weights == can_fork
    assert not plan_cluster(settings("--workers", "1")).shares_weights  # the process they come from is one more
    assert not plan_cluster(settings("--workers", "2", "--share-weights", "off")).shares_weights
    if hasattr(os, "fork"):
        assert plan_cluster(settings("--workers", "1", "--share-weights", "on")).shares_weights


def test_workers_are_a_hundred_ports_apart_and_step_over_page_and_balancer():
    plan = plan_cluster(settings("--workers", "5", "--worker-port", "7760", "--balancer-port", "7960"))
    assert [worker.port for worker in plan.workers] == [7760, 8060, 8160, 8260, 8360]
    assert [worker.id for worker in plan.workers] == ["qwen-1", "qwen-2", "qwen-3", "qwen-4", "qwen-5"]
    assert len(set(plan.addresses)) == 7


def test_threads_are_the_cores_divided_by_the_workers_unless_set():
    assert {worker.threads for worker in plan_cluster(settings("--workers", "1")).workers} == {usable_cores()}
    assert {worker.threads for worker in plan_cluster(settings("--workers", "64")).workers} == {1}
    assert {worker.threads for worker in plan_cluster(settings("--workers", "2", "--threads", "7")).workers} == {7}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers", "0"], "1 to 64"),
        (["--workers", "many"], "'many'"),
        (["--workers", "qwen-1,qwen-2"], "a cluster takes their number"),
        (["--port", "8000"], "cannot both have port 8000"),
        (["--worker-port", "65535", "--workers", "2"], "no room for 2 workers"),
        (["--share-weights", "maybe"], "share_weights"),
    ],
)
def test_an_impossible_cluster_is_refused_with_a_sentence(flags, message):
    with pytest.raises(InvalidSettings, match=message):
        plan_cluster(settings(*flags))


def test_every_command_shows_which_child_it_is_and_what_was_typed_for_it(tmp_path):
    flags = ("--workers", "2", "--host", "0.0.0.0", "--insecure", "--model", "bundled", "--policy", "random")
    own = ("--kv-mb", "64", "--max-batch-tokens", "128", "--status-dir", str(tmp_path), "--log-level", "warning")
    arguments = typed(*flags, *own)
    plan = plan_cluster(settings_from(arguments))
    worker, page, balancer = (
        worker_command(arguments, plan.workers[1]),
        plan.page_command(arguments),
        plan.balancer_command(arguments),
    )
    logged = ["--log-level", "warning"]
    status_dir = ["--status-dir", str(tmp_path)]
    assert worker[3:] == [
        *("serve", "--mode", "worker", "--id", "qwen-2", "--port", "7961"),
        *("--threads", str(plan.workers[1].threads), "--host", "127.0.0.1"),
        *("--model", "bundled", *status_dir, *logged, "--kv-mb", "64", "--max-batch-tokens", "128"),
    ]
    assert forkserver_command(arguments)[3:] == worker[12:]
    assert page[3:] == [
        *("serve", "--mode", "ui", "--url", "http://127.0.0.1:8000", "--port", "7860"),
        *("--host", "0.0.0.0", *logged, "--insecure"),
    ]
    assert balancer[3:] == [
        *("balance", "--workers", "qwen-1,qwen-2", "--port", "8000", "--host", "0.0.0.0"),
        *(*status_dir, *logged, "--insecure", "--policy", "random"),
    ]
