"""A model folder of any architecture that transformers knows -> a TransformersEngine.

Nothing is downloaded, and no code that a folder brings is run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from qwen_aio.core import Precision, Segments
from qwen_aio.engine.config import EngineLimits, read_config, refuse_quantized
from qwen_aio.engine.foreign.chat_template import ChatTemplate, Render
from qwen_aio.engine.foreign.prompts import ForeignPrompts
from qwen_aio.engine.foreign.tokenizer import ForeignTokenizer
from qwen_aio.engine.native.bindings import TORCH
from qwen_aio.errors import InvalidModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from qwen_aio.engine.foreign.engine import TransformersEngine
    from qwen_aio.engine.foreign.model import ForeignModel

DTYPES: Mapping[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True, eq=False)
class LoadedForeign:
    """A checkpoint in memory. Read only."""

    model: ForeignModel
    prompts: ForeignPrompts
    end_ids: frozenset[int]
    kernel: ClassVar[str] = TORCH  # what computes the forward pass


def load_foreign(model_dir: Path, *, threads: int, precision: Precision) -> LoadedForeign:
    """The checkpoint in `model_dir`, in fp32 or bf16. Raises InvalidModel."""
    os.environ |= OFFLINE
    torch.set_num_threads(threads)
    prompts, tokenizer = read_prompts(model_dir)
    # Here and not above: only who uses transformers waits for its import.
    from qwen_aio.engine.foreign.model import ForeignModel

    model = _read_weights(model_dir, dtype=DTYPES[precision])
    foreign = ForeignModel(model)
    if prompts.tokenizer.vocab_size > foreign.vocab_size:
        more = f"{prompts.tokenizer.vocab_size} tokens, the model only {foreign.vocab_size}"
        raise InvalidModel(f"{model_dir}: the tokenizer has {more}")
    configs = (model.generation_config, model.config, tokenizer)
    stated = [getattr(each, "eos_token_id", None) for each in configs]
    if (end := prompts.template.end_token) is not None:
        stated.append(prompts.tokenizer.control_id(end.token))
    return LoadedForeign(foreign, prompts, frozenset(each for one in stated for each in _ids(one)))


def make_foreign_engine(loaded: LoadedForeign, limits: EngineLimits, *, threads: int) -> TransformersEngine:
    """An engine over a loaded model. Raises InvalidSettings."""
    from qwen_aio.engine.foreign.engine import TransformersEngine

    torch.set_num_threads(threads)
    return TransformersEngine(loaded.model, loaded.prompts, limits, end_ids=loaded.end_ids)


def read_prompts(model_dir: Path) -> tuple[ForeignPrompts, PreTrainedTokenizerFast]:
    """How texts become tokens, without the weights; and the tokenizer of transformers. Raises InvalidModel."""
    os.environ |= OFFLINE
    from transformers import PreTrainedTokenizerFast

    own = ForeignTokenizer.load(model_dir)
    try:
        # The plain class, which takes tokenizer.json as it is; classes of families build their own.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(model_dir, local_files_only=True)
    except Exception as exc:  # a library that reads a damaged file raises what it likes
        raise InvalidModel(f"{model_dir}: the tokenizer's files are damaged: {exc}") from exc
    if not tokenizer.chat_template:
        raise InvalidModel(
            f"{model_dir} has no chat template, neither in tokenizer_config.json nor in chat_template.jinja:"
            " it is no chat model, or its folder is incomplete"
        )
    return ForeignPrompts(own, ChatTemplate(_render_of(tokenizer), own), _opening(tokenizer, own)), tokenizer


def _render_of(tokenizer: PreTrainedTokenizerFast) -> Render:
    def render(messages: Sequence[Mapping[str, str]]) -> str:
        # A label is scored where the answer begins, so models that may think first (Qwen3) are told not to.
        rendered = tokenizer.apply_chat_template(
            [dict(each) for each in messages], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return str(rendered)

    return render


def _opening(tokenizer: PreTrainedTokenizerFast, own: ForeignTokenizer) -> Segments:
    """The control tokens that the tokenizer puts in front of a text."""
    ids: list[int] = tokenizer("x")["input_ids"]
    opening = []
    for token_id in ids:
        if (control := own.control_of(token_id)) is None:
            break
        opening.append(control)
    return tuple(opening)


def _read_weights(model_dir: Path, *, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    library: Any = logging  # its functions have no types
    library.disable_progress_bar()
    library.set_verbosity_error()  # what it warns of is checked here, and a log has lines of ours
    from_pretrained: Any = AutoModelForCausalLM.from_pretrained  # its stub does not know output_loading_info

    path = model_dir / "config.json"
    config = read_config(path)
    refuse_quantized(path, config)
    if "AutoModelForCausalLM" in (config.get("auto_map") or {}):
        raise InvalidModel(f"{path} has auto_map: a model that brings its own code is not loaded")
    try:
        model, found = from_pretrained(
            model_dir,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as exc:  # a library that reads a damaged or unknown file raises what it likes
        raise InvalidModel(f"{model_dir}: transformers cannot load this model: {exc}") from exc
    if missing := sorted(found["missing_keys"]):
        raise InvalidModel(f"{model_dir}: the weights lack {', '.join(missing[:3])}, which would be random numbers")
    model.eval()
    return model.requires_grad_(False)


def _ids(stated: int | Iterable[int] | None) -> list[int]:
    if stated is None:
        return []
    return [stated] if isinstance(stated, int) else [*stated]
