"""Which precisions are worth a try, and the errors before anything is started."""

from __future__ import annotations

from argparse import Namespace

import pytest

from qwen_aio.cli.main import main
from qwen_aio.cli.tune import describe_change, precisions
from qwen_aio.config import load_settings
from qwen_aio.models.find import BUNDLED
from qwen_aio.startup.flags import settings_from
from qwen_aio.worker.loading import choose_model, records_of
from qwen_aio.worker.precision_record import PrecisionRecord
from tests.engine.outliers import of_mlp, with_outliers


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def tried(asked: str | None, **flags: str) -> tuple[str, ...]:
    arguments = Namespace(**flags)
    return precisions(asked, arguments, choose_model(settings_from(arguments)))


def test_both_precisions_are_tried_unless_one_is_asked_for():
    assert tried(None) == tried("auto") == ("int8", "fp32")
    assert tried("int8") == ("int8",)
    assert tried("fp32") == ("fp32",)


def test_int8_is_not_tried_after_a_record_against_it_unless_it_is_asked_for(capsys):
    settings = load_settings({})
    records_of(settings, choose_model(settings)).write(PrecisionRecord("fp32", "3 of 12 golden labels change in int8"))
    assert tried(None) == ("fp32",)
    assert "int8 is not tried: 3 of 12 golden labels change" in capsys.readouterr().err
    assert tried("int8") == ("int8",)


@pytest.mark.parametrize("in_the_file", ["auto", "fp32", "int8"])
def test_int8_that_auto_would_refuse_is_not_tried_even_before_a_comparison(tmp_path, capsys, in_the_file):
    hopeless = with_outliers(BUNDLED, tmp_path / "hopeless", of_mlp, factor=1e-4)
    (tmp_path / "qwen_aio.toml").write_text(f'precision = "{in_the_file}"')
    assert tried(None, model=str(hopeless)) == ("fp32",)
    assert "int8 is not tried: " in capsys.readouterr().err


def test_the_help_says_how_many_are_asked(capsys):
    with pytest.raises(SystemExit):
        main(["tune", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "(eight callers) and tokens per second (eight answers at once)" in shown


def test_the_value_in_the_file_is_printed_if_it_differs():
    assert describe_change("workers", None, "2") == describe_change("workers", "2", "2") == "workers = 2"
    assert describe_change("workers", "3", "2") == "workers = 3 -> 2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seconds", "1"], "--seconds: 1 is not between 5 and 3600"),
        (["--seconds", "nan"], "--seconds: nan is not between"),
        (["--precision", "int3"], "precision"),
        (["--model", "/nowhere"], "no model folder"),
        (["--prompts-dir", "/nowhere"], "no folder of tasks"),
        (["--out", "damaged.toml/new.toml"], "damaged.toml/new.toml cannot be written"),
        (["--out", "."], ". is not a plain file"),
        (["--out", "/dev/full"], "/dev/full is not a plain file"),
        (["--out", "/proc/qwen_aio.toml"], "/proc/qwen_aio.toml cannot be written"),
        (["--out", "damaged.toml"], "damaged.toml is not valid"),
        (["--out", "one.toml"], "one.toml names the workers of a balancer (a=http://10.0.0.7:7861)"),
        (["--out", "several.toml"], "several.toml names the workers of a balancer (['qwen-1', 'qwen-2'])"),
    ],
)
def test_a_mistake_is_printed_before_anything_is_started(tmp_path, capsys, arguments, message):
    (tmp_path / "damaged.toml").write_text("port =")
    (tmp_path / "one.toml").write_text('workers = "a=http://10.0.0.7:7861"')
    (tmp_path / "several.toml").write_text('workers = ["qwen-1", "qwen-2"]')
    assert main(["tune", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
