"""Folders that can be written to, and those that cannot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qwen_aio.doctor.folders import FolderState, read_folder, state_findings, status_findings

FOLDER = Path("/srv/qwen")


@pytest.mark.parametrize(
    ("folder", "mark", "words"),
    [
        (FolderState(FOLDER, 500), "ok", "500 MB are free"),
        (FolderState(FOLDER, 500, "Read-only file system"), "problem", "cannot be written: Read-only file system"),
        (FolderState(FOLDER, 500, is_open_to_all=True), "problem", "may be written by everybody"),
        (FolderState(FOLDER, 0), "problem", "is full"),
    ],
)
def test_no_start_without_the_status_folder(folder, mark, words):
    (found,) = status_findings(folder)
    assert found.mark == mark and words in found.found and bool(found.remedy) == (mark != "ok")


@pytest.mark.parametrize(
    ("folder", "mark", "words"),
    [
        (FolderState(FOLDER, 500), "ok", "500 MB are free"),
        (FolderState(FOLDER, 499), "note", "room for 499 MB, and the int8 weights take 500"),
        (FolderState(FOLDER, 900, "Permission denied"), "note", "(Permission denied)"),
    ],
)
def test_without_the_folder_of_records_a_start_is_only_slower(folder, mark, words):
    (found,) = state_findings(folder, needed_mb=500)
    assert found.mark == mark and words in found.found and bool(found.remedy) == (mark != "ok")


def test_a_folder_that_is_not_there_yet_is_judged_by_the_one_it_would_be_made_in(tmp_path):
    state = read_folder(tmp_path / "a" / "b")
    assert (state.refusal, state.is_open_to_all) == ("", False) and state.free_mb > 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_its_place_is_a_refusal(tmp_path):
    (tmp_path / "status").write_text("x")
    assert read_folder(tmp_path / "status").refusal
    assert read_folder(tmp_path / "status" / "inner").refusal


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_folder_for_everybody_is_found(tmp_path):
    tmp_path.chmod(0o777)
    assert read_folder(tmp_path).is_open_to_all


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_or_a_lock_of_another_user_is_found(tmp_path):
    (tmp_path / "status.json.lock").touch(mode=0o444)
    assert read_folder(tmp_path).refusal == "status.json.lock belongs to another user"
    (tmp_path / "status.json.lock").unlink()
    tmp_path.chmod(0o555)
    assert read_folder(tmp_path).refusal == "Permission denied"
