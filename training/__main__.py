"""`python -m training --data DIR --out DIR --work DIR`: the bundled model from nothing, resumable at any instant."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.tasks.loader import load_tasks
from training import corpus, prepare
from training.batches import plan
from training.export import export, load_weights
from training.gates import Examiner
from training.model import Network
from training.prompts import worded
from training.recipe import SHORT, TASKS, Recipe
from training.rows import Encoder
from training.samples import print_samples
from training.train import Material, Trainer, has_bf16

ROOT = Path(__file__).resolve().parent.parent
BUNDLED = ROOT / "qwen_aio" / "models" / "bundled"


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 2 with a sentence on stderr if something is missing."""
    options = _parser().parse_args(arguments)
    try:
        corpus.check_folder(options.data)
        build(
            data=options.data,
            out=options.out,
            work=options.work,
            recipe=replace(SHORT if options.short else Recipe(), first_phase=options.first_phase),
            threads=options.threads,
            begin_with=options.begin_with,
        )
    except (corpus.MissingData, prepare.OtherRecipe) as exc:
        print(f"python -m training: {exc}", file=sys.stderr)
        return 2
    return 0


def build(*, data: Path, out: Path, work: Path, recipe: Recipe, threads: int, begin_with: Path | None = None) -> None:
    """Tokenizer, rows, training, export: what is in `work` already is not made again.

    `begin_with` is an exported model whose weights and vocabulary the run goes on from. Raises prepare.OtherRecipe.
    """
    started = time.monotonic()
    torch.set_num_threads(threads)
    prepare.claim(work, recipe)
    if begin_with is not None:
        prepare.take_vocabulary(work, begin_with)
    tasks = load_tasks(ROOT / "prompts")
    specification = prepare.specification(work, data, tasks, recipe)
    tokenizer = Tokenizer(specification)
    asked = {name: tasks[name] for name in TASKS} | {task.name: task for task in worded(tasks["sentiment"])}
    encoder = Encoder(tokenizer, asked)
    rows = prepare.rows(work, data, encoder, recipe)
    material = Material(slots=plan(rows, recipe), rows=rows, heads=prepare.heads(encoder))

    torch.manual_seed(recipe.seed)
    network = Network(recipe.shape, vocab_size=tokenizer.vocab_size)
    if begin_with is not None:
        load_weights(network, begin_with)
    trainer = Trainer(network, material, recipe, checkpoint=work / "checkpoint.pt")
    trainer.resume()
    _tell(material, network, trainer.step)
    examiner = Examiner(corpus.sentiment_rows(data, "dev"), encoder)

    def look(network: Network, step: int) -> None:
        found = examiner.accuracy(network)
        print(f"\nstep {step}, {(time.monotonic() - started) / 60:.1f} min, right answers on dev rows:", flush=True)
        print("  " + ", ".join(f"{source} {share:.3f}" for source, share in sorted(found.items())), flush=True)
        print_samples(network, tokenizer, encoder)

    trainer.run(look)
    export(network, specification, out)
    print(f"wrote {out} after {(time.monotonic() - started) / 60:.1f} minutes")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description="Build the bundled model.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the training data, see training/README.md")
    parser.add_argument(
        "--out", type=Path, default=BUNDLED, help=f"where the model is written (default {BUNDLED.relative_to(ROOT)})"
    )
    parser.add_argument("--work", type=Path, required=True, help="vocabulary, rows and checkpoint; rerun to resume")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--begin-with", type=Path, help="a model of this shape to go on from, with its vocabulary")
    parser.add_argument("--first-phase", type=int, default=0, help="of the recipe; those before it are left out")
    parser.add_argument("--short", action="store_true", help="a tiny model in a minute, to see that everything works")
    return parser


def _tell(material: Material, network: Network, step: int) -> None:
    for task, rows in material.rows.items():
        slots = [slot for slot in material.slots if slot.task == task]
        tokens = sum(int(rows.lengths[slot.rows].sum()) for slot in slots)
        print(f"{task}: {len(rows)} rows, {tokens / 1e6:.2f} M tokens to see in {len(slots)} steps")
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    arithmetic = "bf16 products" if has_bf16() else "fp32"
    print(f"{millions:.2f} M parameters, {arithmetic}, step {step} of {len(material.slots)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
