"""What is said of Python and the packages, for installations that are made up."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import pytest

from qwen_aio import __version__
from qwen_aio.doctor.finding import Finding
from qwen_aio.doctor.installation import (
    Requirement,
    extra_findings,
    package_findings,
    python_findings,
    read_requirements,
    read_torch,
    torch_findings,
)

AIOHTTP = Requirement("aiohttp", "3.14.5", "3.14.5")
TORCH = Requirement("torch", "2.13.0", "2.13.0+cpu")
JSON = Requirement("llguidance", "1.9.1", None, extra="json")
TESTS = Requirement("pytest", "9.2.0", None, extra="dev")


def test_python_is_named_and_32_bits_are_too_few():
    assert python_findings("3.11.7", "/opt/python", largest_size=2**63) == [
        Finding("ok", "Python 3.11.7 at /opt/python")
    ]
    (found,) = python_findings("3.11.7", "/opt/python", largest_size=2**31 - 1)
    assert found.mark == "problem" and "32 bits" in found.found


def test_packages_as_tested_are_counted_without_torch_and_extras():
    found = package_findings([AIOHTTP, TORCH, JSON, TESTS], recorded_version=__version__)
    assert found == [Finding("ok", f"qwen_aio {__version__} and 1 packages in the tested versions")]


def test_missing_packages_are_a_problem_and_other_versions_a_note():
    needed = [AIOHTTP, replace(AIOHTTP, name="a", installed="2"), replace(AIOHTTP, name="b", installed=None)]
    missing, other = package_findings(needed, recorded_version=__version__)
    assert (missing.mark, missing.found) == ("problem", "missing: b")
    assert (other.mark, other.found) == ("note", "other versions than the tested ones in brackets: a 2 (3.14.5)")
    assert "install qwen-aio again" in missing.remedy


def test_code_that_was_exchanged_without_an_installation_is_found():
    (found,) = package_findings([AIOHTTP], recorded_version="0.1.0")
    assert (found.mark, found.found) == ("problem", f"this is {__version__}, but 0.1.0 was installed")


def test_a_folder_that_is_not_installed_is_said():
    (found,) = package_findings(None, recorded_version=None)
    assert found.mark == "note" and "not installed" in found.found


@pytest.mark.parametrize(
    ("installed", "kernel", "may_be_int8", "mark", "words"),
    [
        ("2.13.0", "torch", True, "ok", "torch 2.13.0"),
        ("2.13.0+cpu", "avx2", True, "ok", "torch 2.13.0+cpu"),
        ("2.12.1", "avx2", False, "note", "not the tested version, 2.13.0"),
        (None, "avx2", False, "note", "the kernel avx2 computes without it"),
        (None, "avx2", True, "problem", "makes the int8 weights"),
        (None, "torch", False, "problem", "nothing else computes this model"),
    ],
)
def test_torch_is_needed_where_no_kernel_computes_and_for_int8(installed, kernel, may_be_int8, mark, words):
    (found,) = torch_findings(replace(TORCH, installed=installed), kernel=kernel, may_be_int8=may_be_int8)
    assert found.mark == mark and words in found.found


def test_extras_say_what_they_are_for():
    (found,) = extra_findings([AIOHTTP, JSON, TESTS])
    assert found.mark == "note" and "response_format" in found.found and "qwen-aio[json]" in found.remedy
    assert extra_findings([replace(JSON, installed="1.9.1")]) == [Finding("ok", "json: llguidance 1.9.1")]


def test_the_requirements_of_this_installation_are_read():
    found = {(each.name, each.extra): each for each in read_requirements(platform="linux") or ()}
    assert found["aiohttp", ""].installed == version("aiohttp")
    assert ("llguidance", "json") in found and ("uvloop", "") in found
    assert read_torch(found.values()) == found["torch", ""]
    assert read_torch(None).is_met
    assert "uvloop" not in {each.name for each in read_requirements(platform="win32") or ()}
