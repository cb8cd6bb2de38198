import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from qwen_aio.engine.text.tokenizer import Tokenizer
from training import prepare
from training.__main__ import build, main
from training.batches import plan
from training.corpus import MissingData, check_folder, sentiment_rows
from training.model import Network
from training.rows import Rows
from training.samples import CONVERSATIONS
from training.train import Material, Trainer, losses


@pytest.fixture
def material(data, encoder, recipe):
    made = prepare.all_rows(data, encoder, recipe, teacher=lambda rows: np.full((len(rows), 3), np.nan))
    rows = {task: Rows.collect(of_task) for task, of_task in made.items()}
    return Material(slots=plan(rows, recipe), rows=rows, heads=prepare.heads(encoder))


@pytest.fixture(autouse=True)
def fp32(monkeypatch):
    """Small differences must not hide behind bf16's rounding."""
    monkeypatch.setattr("training.train.has_bf16", lambda: False)


def trainer_of(material, recipe, tokenizer, path):
    torch.manual_seed(3)
    return Trainer(Network(recipe.shape, vocab_size=tokenizer.vocab_size), material, recipe, checkpoint=path)


class Stopped(Exception):
    pass


def test_a_run_that_was_killed_ends_exactly_as_one_that_was_not(material, recipe, tokenizer, tmp_path):
    whole = trainer_of(material, recipe, tokenizer, tmp_path / "whole.pt")
    whole.run(lambda _, __: None)

    def stop(_, __):
        raise Stopped

    first = trainer_of(material, recipe, tokenizer, tmp_path / "halves.pt")
    with pytest.raises(Stopped):
        first.run(stop)  # dies half way, with a checkpoint behind it
    second = trainer_of(material, recipe, tokenizer, tmp_path / "halves.pt")
    second.resume()
    assert 0 < second.step < len(material.slots)
    second.run(lambda _, __: None)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, second.network.state_dict()[name]), name


def test_the_loss_falls(material, recipe, tokenizer, tmp_path):
    trainer = trainer_of(material, recipe, tokenizer, tmp_path / "checkpoint.pt")
    batch = material.batch(0, recipe)
    with torch.inference_mode():
        before = losses(trainer.network, batch)[0].item()
    trainer.run(lambda _, __: None)
    with torch.inference_mode():
        after = losses(trainer.network, batch)[0].item()
    assert after < before - 0.5


def test_nothing_of_a_dev_row_is_trained_on(data, material, tokenizer):
    assert len(sentiment_rows(data, "dev")) == 5
    for rows in material.rows.values():
        assert "秘密" not in tokenizer.decode(rows.ids.tolist())


def test_the_vocabulary_has_not_seen_the_dev_rows_either(data, encoder, recipe, monkeypatch):
    seen = []
    monkeypatch.setattr(prepare, "train_tokenizer", lambda texts, **_: seen.extend(texts))
    prepare.vocabulary(data, encoder.tasks, recipe)
    assert not any("秘密" in text for text in seen)
    assert any("太差了" in text for text in seen)


def test_grave_dialogues_are_left_to_the_tasks_rule(material, tokenizer):
    text = tokenizer.decode(material.rows["chat"].ids.tolist())
    assert "考试压力好大" in text
    assert "不想活" not in text


def test_a_folder_without_the_data_is_told_by_name(tmp_path, capsys):
    with pytest.raises(MissingData, match=r"sentiment_zh.jsonl.gz"):
        check_folder(tmp_path)
    arguments = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert main(arguments) == 2
    assert "--data" in capsys.readouterr().err


def test_one_command_makes_a_model_the_product_reads_and_does_nothing_twice(
    data, recipe, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("training.samples.CONVERSATIONS", CONVERSATIONS[:1])  # an untrained network babbles on and on
    out, work = tmp_path / "out", tmp_path / "work"
    build(data=data, out=out, work=work, recipe=recipe, threads=1)
    assert Tokenizer.load(out).vocab_size == json.loads((out / "config.json").read_text())["vocab_size"]
    assert "online_shopping_10_cats" in capsys.readouterr().out  # accuracy on the dev rows
    weights = (out / "model.safetensors").read_bytes()

    monkeypatch.setattr(Trainer, "_advance", lambda *_: pytest.fail("trained again"))
    build(data=data, out=out, work=work, recipe=recipe, threads=1)
    assert (out / "model.safetensors").read_bytes() == weights


def test_a_run_goes_on_from_the_very_weights_and_vocabulary_it_begins_with(data, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("training.samples.CONVERSATIONS", CONVERSATIONS[:1])
    build(data=data, out=tmp_path / "first", work=tmp_path / "a", recipe=recipe, threads=1)
    nothing_left = replace(recipe, first_phase=len(recipe.phases), seed=recipe.seed + 1)
    build(
        data=data,
        out=tmp_path / "second",
        work=tmp_path / "b",
        recipe=nothing_left,
        threads=1,
        begin_with=tmp_path / "first",
    )
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


def test_a_work_folder_of_another_recipe_is_refused(recipe, tmp_path):
    prepare.claim(tmp_path, recipe)
    prepare.claim(tmp_path, recipe)
    with pytest.raises(prepare.OtherRecipe, match="--work"):
        prepare.claim(tmp_path, replace(recipe, seed=21))
