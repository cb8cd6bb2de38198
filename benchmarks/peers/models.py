"""A model folder -> what each peer loads: made once, kept under build/peers/models.

<peers>/models/<fingerprint>/plain/     the given model: hf (for transformers), Q8_0.gguf, Q4_0.gguf
<peers>/models/<fingerprint>/talking/   its twin of talking_model.py: hf, Q8_0.gguf, Q4_0.gguf, openvino
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from benchmarks.peers.talking_model import write_talking_model
from benchmarks.peers.words import Words

QUANTISATIONS = {"llama-q8": "Q8_0", "llama-q4": "Q4_0"}  # by the side that loads it
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Forms:
    """One model in every form that somebody here loads."""

    folder: Path

    @property
    def hf(self) -> Path:
        return self.folder / "hf"

    @property
    def openvino(self) -> Path:
        return self.folder / "openvino"

    def gguf(self, quantisation: str) -> Path:
        return self.folder / f"{quantisation}.gguf"


@dataclass(frozen=True)
class Models:
    """The given model and its talking twin."""

    plain: Forms
    talking: Forms


def prepare(model_dir: Path, peers: Path, words: Words, sides: Collection[str]) -> Models:
    """Make what is missing of what `sides` load. Raises subprocess.CalledProcessError if a peer's converter fails."""
    home = peers / "models" / _fingerprint(model_dir)
    models = Models(Forms(home / "plain"), Forms(home / "talking"))
    _once(models.plain.hf, lambda out: _write_hf(model_dir, out))
    _once(models.talking.hf, lambda out: _write_talking_hf(model_dir, out, words))
    if not QUANTISATIONS.keys().isdisjoint(sides):
        for forms in (models.plain, models.talking):
            _make_ggufs(forms, peers)
    if "openvino" in sides:
        _once(models.talking.openvino, lambda out: _export_openvino(models.talking.hf, out, peers))
    return models


def _fingerprint(model_dir: Path) -> str:
    """Of the configuration, and of size and time of the weights: reading them would take longer than loading them."""
    weights = (model_dir / "model.safetensors").stat()
    told = f"{(model_dir / 'config.json').read_text()} {weights.st_size} {weights.st_mtime_ns}"
    return sha256(told.encode()).hexdigest()[:12]


def _once(path: Path, make: Callable[[Path], None]) -> None:
    """`path` is complete or absent, whatever happens on the way."""
    if path.exists():
        return
    print(f"making {path} ...", file=sys.stderr)
    unfinished = path.with_name(f"{path.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    make(unfinished)
    unfinished.rename(path)


def _write_hf(model_dir: Path, out: Path) -> None:
    out.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (out / name).symlink_to((model_dir / name).resolve())
    _write_tokenizer_files(out)


def _write_talking_hf(model_dir: Path, out: Path, words: Words) -> None:
    out.mkdir()
    write_talking_model(model_dir, out, words)
    _write_tokenizer_files(out)


def _write_tokenizer_files(out: Path) -> None:
    """What transformers and llama.cpp's converter want beside tokenizer.json."""
    tokenizer = json.loads((out / "tokenizer.json").read_text())
    added = {str(token.pop("id")): token for token in tokenizer["added_tokens"]}
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": added,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 32768,
        "chat_template": CHAT_TEMPLATE,
    }
    merges = (pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"])
    (out / "tokenizer_config.json").write_text(json.dumps(config))
    (out / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"]))
    (out / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    (out / "generation_config.json").write_text('{"eos_token_id": 151645, "pad_token_id": 151643}')


def _make_ggufs(forms: Forms, peers: Path) -> None:
    missing = [name for name in QUANTISATIONS.values() if not forms.gguf(name).exists()]
    if not missing:
        return
    whole = forms.folder / "f16.gguf"
    converter = ("openvino/bin/python", "llama.cpp-source/convert_hf_to_gguf.py")  # that environment has torch and gguf
    _run(*(peers / part for part in converter), forms.hf, "--outfile", whole, "--outtype", "f16")
    quantize = peers / "llama.cpp" / "bin" / "llama-quantize"
    for name in missing:
        _once(forms.gguf(name), partial(_quantise, quantize, whole, name))
    whole.unlink()


def _quantise(quantize: Path, whole: Path, name: str, out: Path) -> None:
    _run(quantize, whole, out, name)


def _export_openvino(hf: Path, out: Path, peers: Path) -> None:
    """8-bit weights, symmetric: its faster form here."""
    task = ("--task", "text-generation-with-past", "--weight-format", "int8", "--sym")
    _run(peers / "openvino" / "bin" / "optimum-cli", "export", "openvino", "--model", hf, *task, out)


def _run(*command: str | Path) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
