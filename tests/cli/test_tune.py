"""Which precisions are worth a try, and what is told before anything is started."""

from __future__ import annotations

import pytest

from qwen_aio.cli.loading import choose_model, records_of
from qwen_aio.cli.main import main
from qwen_aio.cli.tune import precisions
from qwen_aio.cli.verdict import Verdict
from qwen_aio.config import load_settings
from qwen_aio.engine.linear import why_no_int8
from qwen_aio.errors import InvalidSettings

has_int8 = pytest.mark.skipif(why_no_int8() is not None, reason="this machine has no int8 products")


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@has_int8
def test_both_precisions_are_tried_unless_one_is_asked_for():
    model = choose_model(load_settings({}))
    assert precisions(None, model) == precisions("auto", model) == ("int8", "fp32")
    assert precisions("int8", model) == ("int8",)
    assert precisions("fp32", model) == ("fp32",)


@has_int8
def test_int8_is_not_tried_after_a_verdict_against_it_unless_it_is_asked_for(capsys):
    model = choose_model(load_settings({}))
    records_of(model).write(Verdict("fp32", "3 of 12 golden labels change in int8"))
    assert precisions(None, model) == ("fp32",)
    assert "int8 is not tried: 3 of 12 golden labels change" in capsys.readouterr().err
    assert precisions("int8", model) == ("int8",)


@pytest.mark.skipif(why_no_int8() is None, reason="this machine has int8 products")
def test_without_int8_products_fp32_alone_is_tried(capsys):
    model = choose_model(load_settings({}))
    assert precisions(None, model) == ("fp32",)
    assert "int8 is not tried: " in capsys.readouterr().err
    with pytest.raises(InvalidSettings, match="--precision int8"):
        precisions("int8", model)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seconds", "1"], "--seconds: 1 is not between 5 and 3600"),
        (["--seconds", "nan"], "--seconds: nan is not between"),
        (["--precision", "int3"], "precision"),
        (["--model", "/nowhere"], "no model folder"),
        (["--prompts-dir", "/nowhere"], "no folder of tasks"),
        (["--out", "damaged.toml"], "damaged.toml is not valid"),
    ],
)
def test_a_mistake_is_told_before_anything_is_started(tmp_path, capsys, arguments, told):
    (tmp_path / "damaged.toml").write_text("port =")
    assert main(["tune", *arguments]) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
