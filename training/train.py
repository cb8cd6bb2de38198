"""The run itself: steps, checkpoints, a look at the dev rows now and then.

Owns network and optimiser. A checkpoint replaces the last one whole, so a run killed at any instant goes on from it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm  # type: ignore[import-untyped]  # tqdm ships no types

from training.batches import Batch, Head, Slot, make_batch
from training.model import Network
from training.recipe import Recipe
from training.rows import Rows


@dataclass(frozen=True)
class Material:
    """What a run learns from."""

    slots: list[Slot]
    rows: Mapping[str, Rows]
    heads: Mapping[str, Head]

    def batch(self, step: int, recipe: Recipe) -> Batch:
        slot = self.slots[step]
        return make_batch(slot, self.rows[slot.task], self.heads, step=step, recipe=recipe)


class Trainer:
    """A network on its way through the plan."""

    def __init__(self, network: Network, material: Material, recipe: Recipe, *, checkpoint: Path) -> None:
        self.network = network
        self.step = 0
        self._material = material
        self._recipe = recipe
        self._checkpoint = checkpoint
        self._optimizer = _optimizer(network, recipe)

    def resume(self) -> None:
        """Go on from the checkpoint if there is one."""
        if self._checkpoint.exists():
            stored = torch.load(self._checkpoint, weights_only=True)
            self.network.load_state_dict(stored["network"])
            self._optimizer.load_state_dict(stored["optimizer"])
            self.step = stored["step"]

    def save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
        }
        partial = self._checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._checkpoint)

    def run(self, look: Callable[[Network, int], None]) -> None:
        """All steps that are left; `look` is called with network and step, evenly spread and after the last one."""
        total = len(self._material.slots)
        looks = {math.ceil(total * (i + 1) / self._recipe.evaluations) for i in range(self._recipe.evaluations)}
        saved_at = time.monotonic()
        shown: dict[str, float] = {}  # task -> smoothed loss, for the progress bar
        with tqdm(total=total, initial=self.step, desc="training", unit="step", mininterval=5.0) as bar:
            while self.step < total:
                task = self._material.slots[self.step].task
                loss = self._advance()
                shown[task] = loss if task not in shown else 0.98 * shown[task] + 0.02 * loss
                bar.update()
                if self.step % 20 == 0:
                    bar.set_postfix({name: f"{value:.3f}" for name, value in shown.items()}, refresh=False)
                if time.monotonic() - saved_at > self._recipe.checkpoint_every_s:
                    self.save()
                    saved_at = time.monotonic()
                if self.step in looks:
                    look(self.network, self.step)
        self.save()

    def _advance(self) -> float:
        """One step; returns the loss on the answers."""
        batch = self._material.batch(self.step, self._recipe)
        for group in self._optimizer.param_groups:
            group["lr"] = self._material.slots[self.step].lr
        with arithmetic():
            answers, others = losses(self.network, batch)
        (answers + self._recipe.lm_weight * others).backward()  # type: ignore[no-untyped-call]  # torch's own
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self._recipe.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return answers.item()


def losses(network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy over what the model has to say and over the other predicted tokens (0 if there are none).

    It has to say the answers' tokens or, of a decision, the labels with their wanted probabilities.
    """
    hidden = network(batch.head, batch.rows).flatten(0, 1)
    each = functional.cross_entropy(network.logits(hidden[batch.positions]).float(), batch.targets, reduction="none")
    others = each[~batch.is_answer]
    language = others.sum() / max(1, len(others))
    if not len(batch.label_ids):
        return each[batch.is_answer].mean(), language
    logprobs = network.logits(hidden[batch.ends]).float().log_softmax(-1)[:, batch.label_ids]
    return -(batch.soft * logprobs).sum(-1).mean(), language


def has_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware; without that bf16 is slower than fp32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def arithmetic() -> AbstractContextManager[object]:
    """bf16 products where the CPU has them; the weights stay fp32 either way."""
    return torch.autocast("cpu", torch.bfloat16, enabled=has_bf16())


def _optimizer(network: Network, recipe: Recipe) -> torch.optim.AdamW:
    return torch.optim.AdamW(_groups(network, recipe), betas=recipe.betas, fused=True)


def _groups(network: Network, recipe: Recipe) -> list[dict[str, object]]:
    """Matrices decay, norms and biases do not."""
    matrices = [p for p in network.parameters() if p.dim() == 2]
    vectors = [p for p in network.parameters() if p.dim() != 2]
    return [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
