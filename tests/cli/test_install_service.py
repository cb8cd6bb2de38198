"""`qwen-aio service install`: a unit where systemd looks for it, and no mistake that shows only at the next start."""

from __future__ import annotations

import pytest

from qwen_aio.cli.main import main


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_a_service_of_ones_own_is_one_command_that_says_what_comes_next(tmp_path, capsys):
    assert main(["service", "install", "--user", "--", "--workers", "2"]) == 0
    unit = (tmp_path / "config/systemd/user/qwen-aio.service").read_text()
    assert "-m qwen_aio.cli.main cluster --workers 2\n" in unit
    assert f"Environment=QWEN_AIO_HOME={tmp_path / 'home'}\n" in unit
    printed = capsys.readouterr().out
    assert "qwen-aio.service is written" in printed
    assert "systemctl --user enable --now qwen-aio\n" in printed


@pytest.mark.parametrize(
    ("program", "command"), [("worker", "serve --mode worker --id far"), ("balancer", "balance --policy random")]
)
def test_workers_and_balancers_have_units_of_their_own(program, command, tmp_path):
    flags = command.split()[-2:]
    assert main(["service", "install", "--user", "--program", program, "--dir", str(tmp_path), "--", *flags]) == 0
    assert f"qwen_aio.cli.main {command}\n" in (tmp_path / f"qwen-aio-{program}.service").read_text()


def test_a_unit_that_was_changed_is_not_overwritten_unless_that_is_said(tmp_path, capsys):
    install = ["service", "install", "--user", "--dir", str(tmp_path)]
    path = tmp_path / "qwen-aio.service"
    assert main(install) == main(install) == 0
    assert "is as it was" in capsys.readouterr().out
    changed = path.read_text().replace("RestartSec=5", "RestartSec=60")
    path.write_text(changed)
    assert main(install) == 1
    told = capsys.readouterr()
    assert "-RestartSec=60\n+RestartSec=5\n" in told.out
    assert "--force" in told.err and path.read_text() == changed
    assert main([*install, "--force"]) == 0
    assert "is replaced" in capsys.readouterr().out and "RestartSec=5\n" in path.read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "0"], "port"),
        (["--model", "models/mine"], "--model models/mine: a service needs the whole path"),
        (["--keys-file", "keys.json"], "--keys-file keys.json"),
        (["--config", "own.toml"], "no settings file"),
    ],
)
def test_a_mistake_in_the_flags_is_told_before_anything_is_written(flags, message, tmp_path, capsys):
    assert main(["service", "install", "--user", "--dir", str(tmp_path), "--", *flags]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.glob("*.service")) == []


def test_an_unknown_flag_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["service", "install", "--user", "--dir", str(tmp_path), "--", "--worker", "2"])
    assert "--worker" in capsys.readouterr().err
    assert list(tmp_path.glob("*.service")) == []


def test_a_folder_that_cannot_be_written_is_one_sentence(capsys):
    assert main(["service", "install", "--user", "--dir", "/proc/units"]) == 1
    error = capsys.readouterr().err
    assert "use sudo, --user or --dir" in error and error.count("\n") == 1
