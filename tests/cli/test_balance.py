"""Which workers a balancer takes when a settings file says how many a cluster has."""

from __future__ import annotations

import argparse

import pytest

from qwen_aio.cli import balance


@pytest.mark.parametrize(
    ("written", "flags", "taken"),
    [
        ("2", [], ()),  # all that report
        ("qwen-1", [], ("qwen-1",)),
        ("2,3", [], ("2", "3")),
        ("2", ["--workers", "3"], ("3",)),  # an id may be a number, if it is typed
        ("2", ["--workers", "qwen-1"], ("qwen-1",)),
    ],
)
def test_a_number_in_the_file_is_no_worker_id(tmp_path, monkeypatch, written, flags, taken):
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))
    (tmp_path / "qwen_aio.toml").write_text(f'workers = "{written}"\n')
    parser = argparse.ArgumentParser()
    balance.add_arguments(parser)
    assert balance.balancer_settings(parser.parse_args(flags)).workers == taken
