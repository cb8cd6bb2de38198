"""Proxies that catch this machine, variables that nobody reads, and clocks that are wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.doctor.clock import DAY_S, clock_findings, read_dates
from qwen_aio.doctor.environment import OTHERS, SETTINGS, proxy_findings, variable_findings
from qwen_aio.service_links import is_service_variable

PROXY = "http://me:secret@proxy.example:3128"
WRITTEN = 1_800_000_000.0
FILE = Path("qwen_aio/__init__.py")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "none for HTTP"),
        ({"https_proxy": PROXY, "http_proxy": ""}, "none for HTTP"),
        ({"http_proxy": PROXY, "no_proxy": "example.org, 127.0.0.1 ,LOCALHOST"}, "http_proxy, but not for localhost"),
        ({"HTTP_PROXY": PROXY, "NO_PROXY": "*"}, "HTTP_PROXY, but not for localhost"),
    ],
)
def test_a_proxy_that_leaves_this_machine_alone_is_right(environment, words):
    (found,) = proxy_findings(environment)
    assert found.mark == "ok" and words in found.found


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"http_proxy": PROXY}, "http_proxy leads curl and many clients to localhost and 127.0.0.1, too"),
        ({"ALL_PROXY": PROXY, "no_proxy": "localhost"}, "ALL_PROXY leads curl and many clients to 127.0.0.1, too"),
        ({"HTTP_PROXY": PROXY, "all_proxy": PROXY, "no_proxy": "127.0.0.1"}, "HTTP_PROXY and all_proxy leads"),
    ],
)
def test_a_proxy_that_catches_this_machine_is_named_without_its_password(environment, words):
    (found,) = proxy_findings(environment)
    assert found.mark == "note" and words in found.found and "no_proxy=" in found.remedy
    assert "secret" not in str(found)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("QWEN_AIO_PROT", "QWEN_AIO_PORT"),
        ("QWEN_AIO_MODELL", "QWEN_AIO_MODEL"),
        ("QWEN_AIO_WORKERS_PORT", "QWEN_AIO_WORKER_PORT"),
        ("QWEN_AIO_KERNELS", "QWEN_AIO_KERNEL"),
        ("qwen_aio_home", "QWEN_AIO_HOME"),  # not a setting: read in these letters alone
    ],
)
def test_a_near_miss_is_a_problem_and_what_was_meant_is_said(name, meant):
    (found,) = variable_findings({name: "1", "QWEN_AIO_ID": "a"})
    assert (found.mark, found.found, found.remedy) == ("problem", f"nothing reads {name}", f"did you mean {meant}?")


@given(st.dictionaries(st.text(max_size=20).map("QWEN_AIO_{}".format), st.text(max_size=10)))
def test_whatever_is_set_is_read_or_named(environment):
    found = variable_findings(environment)
    unread = [name for name in environment if name.upper() not in SETTINGS and name not in OTHERS]
    links = [name for name in unread if is_service_variable(name, environment[name])]
    assert sorted(f"nothing reads {name}" for name in unread if name not in links) == sorted(
        each.found for each in found if each.mark != "ok"
    )


def test_a_variable_that_means_nothing_is_a_note():
    (found,) = variable_findings({"QWEN_AIO_COLOUR_OF_THE_SKY": "blue"})
    assert found.mark == "note" and "COLOUR" in found.found


def test_what_is_read_and_what_kubernetes_makes_are_right():
    links = {
        "QWEN_AIO_PORT": "tcp://10.0.0.1:8000",
        "QWEN_AIO_SERVICE_HOST": "10.0.0.1",
        "QWEN_AIO_SERVICE_PORT": "8000",
        "QWEN_AIO_SERVICE_PORT_HTTP": "8000",
        "QWEN_AIO_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "QWEN_AIO_PORT_8000_TCP_ADDR": "10.0.0.1",
        "QWEN_AIO_WORKERS_PORT": "tcp://10.0.0.2:7861",
    }
    (found,) = variable_findings(links | {"qwen_aio_model": "x", "QWEN_AIO_KEY": "k", "PATH": "/bin"})
    assert (found.mark, found.found) == ("ok", "read: QWEN_AIO_KEY, QWEN_AIO_PORT, qwen_aio_model")
    assert variable_findings({"PATH": "/bin"})[0].found == "none is set"


def test_every_variable_that_the_program_names_is_known():
    named = set()
    for path in Path("qwen_aio").rglob("*.py"):
        named |= set(re.findall(r"QWEN_AIO_[A-Z_]*[A-Z]", path.read_text(encoding="utf-8")))
    assert named - SETTINGS - OTHERS - {"QWEN_AIO_SERVICE_HOST"} == set()  # Kubernetes' own


def test_a_clock_of_1970_is_found_by_the_dates_of_files():
    (found,) = clock_findings(60.0, {FILE: WRITTEN, Path("older"): WRITTEN - 5})
    assert found.mark == "problem" and found.remedy
    assert found.found == f"it shows 1970-01-01T00:01:00Z, but {FILE} was written 2027-01-15T08:00:00Z"


@pytest.mark.parametrize("ahead_s", [-1e9, 0, DAY_S])
def test_a_clock_after_all_files_or_in_another_time_zone_is_right(ahead_s):
    assert clock_findings(WRITTEN, {FILE: WRITTEN + ahead_s})[0].mark == "ok"
    assert clock_findings(WRITTEN, {})[0].mark == "ok"


def test_dates_are_those_of_files_that_are_there(tmp_path):
    assert read_dates([FILE, tmp_path / "none"]) == {FILE: FILE.stat().st_mtime}
