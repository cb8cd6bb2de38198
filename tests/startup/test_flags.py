"""Every setting reaches every process that reads it, whether that is started by a command or forked."""

from __future__ import annotations

import argparse
from argparse import Namespace

import pytest

from qwen_aio.cli import balance, cluster, forkserver, serve
from qwen_aio.cluster.plan import WORKER_HOST, forkserver_command, plan_cluster, worker_command
from qwen_aio.cluster.protocol import WorkerSpec
from qwen_aio.config import Settings, settings_of
from qwen_aio.startup.flags import add_settings_flags, as_flags, child_arguments, settings_from

TYPED = {
    **{"host": "127.0.0.2", "port": "7999", "model": "/a model", "engine": "qwen", "precision": "fp32", "threads": "7"},
    **{
        "prompts_dir": "/prompts",
        "status_dir": "/status",
        "log_level": "debug",
        "log_format": "json",
        "allowed_hosts": "a.lan,b.lan",
    },
    **{
        "root_path": "/qwen",
        "trusted_proxies": "10.0.0.0/8",
        "insecure": True,
        "force_precision": True,
        "offline": False,
        "max_context": "1024",
    },
    **{"kv_mb": "64", "max_batch_tokens": "128", "max_queue": "32", "workers": "2", "policy": "random"},
    **{"slow_ms": "99.5", "balancer_port": "8100", "worker_port": "7200", "share_weights": "on", "golden": "warn"},
    **{"tls_certificate": "/chain.pem", "tls_key": "/key.pem", "tls_ca": "/ca.pem"},
    **{"requests_per_minute": "60", "tokens_per_minute": "90000"},
    **{"allow_system_messages": True, "keys_file": "/keys.json", "service_key_file": "/service.key"},
}
WORKER = WorkerSpec("qwen-2", 7300, 3)
OF_A_WORKER = {"host": WORKER_HOST, "id": "qwen-2", "port": 7300, "threads": 3}
GIVEN = {  # by the plan, whatever was typed
    "worker": OF_A_WORKER,
    "forked worker": OF_A_WORKER,
    "fork server": {"host": WORKER_HOST, "id": None, "port": None, "threads": None},
    "balancer": {"port": 8100, "workers": ("qwen-1", "qwen-2")},
    "page": {"port": 7999},
}


def parsed(module, flags: list[str]) -> Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(flags)


@pytest.fixture
def typed(tmp_path, monkeypatch) -> Namespace:
    """What is typed for a cluster."""
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))
    monkeypatch.delenv("QWEN_AIO_OFFLINE")
    return parsed(cluster, as_flags(Namespace(**TYPED)))


def children(typed: Namespace) -> dict[str, Settings]:
    """The settings of every process that a cluster starts, as it reads them from its command."""
    plan = plan_cluster(settings_from(typed))
    server = parsed(forkserver, [*forkserver_command(typed)[3:], "--control", "3"])
    return {
        "worker": settings_from(parsed(serve, worker_command(typed, WORKER)[4:])),
        "fork server": settings_from(server),
        "forked worker": settings_from(child_arguments(server, "worker", **WORKER.settings)),
        "balancer": settings_from(parsed(balance, plan.balancer_command(typed)[4:])),
        "page": settings_from(parsed(serve, plan.page_command(typed)[4:])),
    }


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_reaches_every_process_that_reads_it_and_no_other(name, typed):
    default = Settings.model_fields[name].default
    of_cluster = getattr(settings_from(typed), name)
    assert (of_cluster != default) == (name != "id"), "a cluster has a flag for all but the id of one worker"
    for child, settings in children(typed).items():
        reader = "worker" if child in ("forked worker", "fork server") else child
        expected = of_cluster if name in settings_of(reader) else default
        assert getattr(settings, name) == GIVEN[child].get(name, expected), child


def test_every_setting_has_a_reader():
    assert set(settings_of("worker", "balancer", "page", "cluster")) == set(Settings.model_fields)


def test_the_process_that_prepares_int8_weights_gets_what_the_fork_server_got(typed):
    server = parsed(forkserver, [*forkserver_command(typed)[3:], "--control", "3"])
    parser = argparse.ArgumentParser()
    add_settings_flags(parser, *settings_of("worker"))
    prepared = settings_from(parser.parse_args(as_flags(child_arguments(server, "worker"))))
    assert prepared.model_dump() == settings_from(server).model_dump()


def test_a_forked_worker_differs_from_the_fork_server_in_its_own_settings(typed):
    spec = WorkerSpec("tune-2", 7300, 3, {"max_batch_tokens": 512, "golden": "off"})
    settings = settings_from(child_arguments(typed, "worker", **spec.settings))
    assert (settings.id, settings.port, settings.max_batch_tokens, settings.golden) == ("tune-2", 7300, 512, "off")
    assert settings.kv_mb == 64


def test_the_settings_file_reaches_children_by_its_name(tmp_path, typed):
    typed.config = tmp_path / "other.toml"
    typed.config.write_text("kv_mb = 9\nslow_ms = 5.0\n")
    del typed.kv_mb, typed.slow_ms
    found = children(typed)
    assert {child: found[child].kv_mb for child in ("worker", "fork server", "forked worker")} == {
        "worker": 9,
        "fork server": 9,
        "forked worker": 9,
    }
    assert found["balancer"].slow_ms == 5.0
