"""`qwen-aio models`: what is here, which one is taken, and whether it is still what came."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qwen_aio.cli.main import main
from qwen_aio.models.find import BUNDLED
from qwen_aio.models.listing import HubFile, Listing
from qwen_aio.models.manifest import MANIFEST, read_manifest


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))
    monkeypatch.delenv("QWEN_AIO_MODEL", raising=False)
    return tmp_path / "models"


def imported(name: str, models: Path) -> Path:
    assert main(["models", "import", str(BUNDLED), "--name", name]) == 0
    return models / name


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    capsys.readouterr()
    assert main(["models", *arguments]) == status
    output = capsys.readouterr()
    return output.out + output.err


def test_the_bundled_model_is_listed_with_the_way_to_the_full_one(models, capsys):
    listed = said(capsys, "list")
    assert listed.startswith("* bundled: taken, nothing in")
    assert "qwen-aio models pull Qwen/Qwen1.5-0.5B-Chat fetches it" in listed
    assert "Qwen2ForCausalLM, 8 million weights in 16 MB, engine qwen" in listed
    assert not models.exists()


def test_every_model_is_listed_and_the_taken_one_has_a_star(models, capsys, monkeypatch, tmp_path):
    imported("qwen1.5-0.5b-chat", models)
    plain = shutil.copytree(BUNDLED, models / "plain")
    (models / "broken").mkdir()
    listed = said(capsys, "list")
    assert f"* qwen1.5-0.5b-chat: taken, found in {models}\n" in listed
    assert f"licence unknown; from {BUNDLED}; hashes recorded 20" in listed
    assert f"  plain\n    {plain}\n    Qwen2ForCausalLM" in listed and "no hashes recorded" in listed
    assert f"  broken\n    {models / 'broken'}\n    {models / 'broken'} is empty" in listed
    assert listed.count("* ") == 1

    elsewhere = shutil.copytree(plain, tmp_path / "elsewhere")
    monkeypatch.setenv("QWEN_AIO_MODEL", str(elsewhere))
    assert "* elsewhere: taken, asked for" in said(capsys, "list")
    assert "* plain: taken, asked for" in said(capsys, "list", "--model", str(plain))
    assert said(capsys, "list", "--model", "nowhere").startswith("no model is taken: no model folder at nowhere")


def test_a_pull_that_is_not_finished_is_listed(models, capsys):
    partial = models / ".pull-tiny" / "tiny"
    partial.mkdir(parents=True)
    file = HubFile(name="model.safetensors", size=4_000_000, git_sha1="a" * 40)
    listing = Listing(hub_name="a/Tiny", revision="main", commit="b" * 40, licence=None, files=[file])
    (partial.parent / "listing.json").write_text(listing.model_dump_json())
    (partial / "model.safetensors").write_bytes(b"x" * 1_000_000)
    assert "a/Tiny: not finished, 1 of 4 MB are here; the same pull goes on" in said(capsys, "list")


def test_verify_is_silent_about_nothing(models, capsys):
    assert "no model in" in said(capsys, "verify")
    good, bad = imported("good", models), imported("bad", models)
    shutil.copytree(BUNDLED, models / "unrecorded")
    (good / ".DS_Store").write_bytes(b"x")
    assert said(capsys, "verify") == f"{bad}: 4 files are as recorded\n{good}: 4 files are as recorded\n"

    weights = bad / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    (bad / "config.json").unlink()
    (bad / "tokenizer.json").write_bytes(b"{}")
    (bad / "chat_template.jinja").write_text("x")
    told = said(capsys, "verify", status=1).splitlines()
    assert told[0] == f"{bad}:" and told[-1] == f"{good}: 4 files are as recorded"
    assert sorted(line.split()[0] for line in told[1:-1]) == [
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert "    config.json is missing" in told and "    chat_template.jinja was added" in told
    assert any("tokenizer.json is wrong: it has 2 bytes" in line for line in told)
    assert any("model.safetensors is wrong: its SHA-256 is" in line for line in told)
    assert said(capsys, "verify", "good") == said(capsys, "verify", str(good))
    assert "as recorded" not in said(capsys, "verify", "bad", status=1)


def test_verify_needs_a_manifest_that_is_sound(models, capsys):
    folder = imported("good", models)
    assert "no model folder at" in said(capsys, "verify", "nowhere", status=1)
    for wrong in ('{"files": {"../x": {"size": 1, "sha256": "%s"}}, "source": "x"}' % ("a" * 64), "{", "[]", ""):
        (folder / MANIFEST).write_text(wrong)
        assert f"{folder / MANIFEST} is damaged" in said(capsys, "verify", "good", status=1)
    (folder / MANIFEST).unlink()
    assert "has no manifest.json" in said(capsys, "verify", "good", status=1)
    assert read_manifest(folder) is None


def test_a_name_that_is_no_model_of_a_hub_is_refused_without_a_network(models, capsys):
    told = said(capsys, "pull", "https://huggingface.co/Qwen/Qwen1.5-0.5B-Chat", status=1)
    assert "names no model at a hub; give OWNER/NAME" in told and not models.exists()
