"""Settings -> an engine: which reach it, and how a load that is no longer awaited ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from qwen_aio.config import Settings, load_settings
from qwen_aio.core import Prompt, Text
from qwen_aio.engine.native.bindings import PATH
from qwen_aio.models.find import BUNDLED
from qwen_aio.worker.loading import choose_model, load_weights, loaded_engine, records_of, sha_of
from tests.engine.thinking_folder import HYBRID, NEVER, thinking_folder
from tests.logged import WAITING, logged


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))


def settings(**values: str) -> Settings:
    return load_settings({"model": "bundled", "golden": "off", **values})


async def steps_of_a_long_prompt(own: Settings) -> int:
    prompt = Prompt(head=(), turns=(), body=(Text("快递太慢了" * 40),))
    async with loaded_engine(own, {}, choose_model(own), threads=1) as ready:
        before = ready.engine.snapshot().steps
        await ready.engine.score("test", prompt, ["正面"])
        return ready.engine.snapshot().steps - before


async def test_the_tokens_of_a_step_reach_the_engine() -> None:
    many = await steps_of_a_long_prompt(settings(precision="fp32", max_batch_tokens="16"))
    few = await steps_of_a_long_prompt(settings(precision="fp32", max_batch_tokens="512"))
    assert many > few


@pytest.mark.skipif(not PATH.exists(), reason="torch computes here")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_worker_imports_no_torch_once_its_weights_are_prepared(precision: str) -> None:
    own = settings(precision=precision)
    load_weights(own, choose_model(own), threads=1)
    code = f"""
import sys
import qwen_aio.cli.serve
from qwen_aio.config import load_settings
from qwen_aio.worker.loading import choose_model, load_weights
own = load_settings({{"model": "bundled", "precision": {precision!r}}})
load_weights(own, choose_model(own), threads=1)
print("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


async def test_the_loading_thread_is_gone_before_any_request_is_served() -> None:
    own = settings(precision="fp32")
    async with loaded_engine(own, {}, choose_model(own), threads=1):
        assert loaders() == []


async def test_cancelling_a_load_does_not_wait_for_its_end() -> None:
    own = settings(precision="int8")
    records = records_of(own, choose_model(own))
    with logged(WAITING) as waiting:
        with records.alone():  # so that the load cannot come to an end
            entering = asyncio.create_task(loaded_engine(own, {}, choose_model(own), threads=1).__aenter__())
            assert await asyncio.to_thread(waiting.wait, 60)
            entering.cancel()
            await asyncio.wait({entering})
            assert entering.cancelled()
            assert not records.weights.path.exists()
            assert loaders() != []
        for thread in loaders():
            await asyncio.to_thread(thread.join)
    assert load_weights(own, choose_model(own), threads=1).precision_record.precision == "int8"


def loaders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("loading")]


def test_a_hash_covers_the_chat_template_of_a_model_that_may_think(tmp_path: Path) -> None:
    own = settings(model=str(thinking_folder(BUNDLED, tmp_path / "thinking")))

    def sha_with(template: str) -> str:
        (tmp_path / "thinking" / "chat_template.jinja").write_text(template)
        return sha_of(own, choose_model(own))

    shas = [sha_with(HYBRID), sha_with(NEVER)]
    assert len({*shas, records_of(own, choose_model(own)).model_sha}) == 2
    (tmp_path / "thinking" / "tokenizer.json").write_bytes((BUNDLED / "tokenizer.json").read_bytes())
    assert sha_with(HYBRID) == sha_with(NEVER) == sha_of(settings(), choose_model(settings()))
