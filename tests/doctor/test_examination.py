"""A check that fails ends no other, and what one says, the next need not."""

from __future__ import annotations

from qwen_aio.doctor.examination import findings_of
from qwen_aio.doctor.finding import Finding
from qwen_aio.errors import InvalidModel

FINE = Finding("ok", "fine")


def raising(exc: Exception):
    def check():
        raise exc

    return check


def test_a_check_that_fails_is_reported_and_the_others_go_on():
    checks = {"first": raising(ZeroDivisionError("by zero")), "second": lambda: [FINE]}
    (name, failed), second = findings_of(checks)
    assert name == "first" and failed.mark == "problem" and "ZeroDivisionError('by zero')" in failed.found
    assert second == ("second", FINE)


def test_a_file_that_cannot_be_read_is_named():
    ((_, found),) = findings_of({"hashes": raising(PermissionError(13, "Permission denied", "/m/model.safetensors"))})
    assert (found.mark, found.found) == (
        "problem",
        "cannot be read: [Errno 13] Permission denied: '/m/model.safetensors'",
    )


def test_one_mistake_is_one_problem_and_what_depends_on_it_is_not_checked():
    missing = raising(InvalidModel("no model folder at /m"))
    found = list(findings_of({"model": missing, "memory": missing, "ports": lambda: [FINE, FINE]}))
    assert found == [
        ("model", Finding("problem", "no model folder at /m")),
        ("memory", Finding("note", "not checked, because of model")),
        ("ports", FINE),
        ("ports", FINE),
    ]
