"""The engine: requests in, one step after another, outputs out.

A step asks the scheduler for rows, runs the model over them, and lets every sequence take what it was waiting for.
Knows no threads, no tasks, no HTTP: service.py owns the thread it lives on.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable

import torch
from torch import Tensor

from qwen_aio.bounds import MAX_TOKENS, check_sampling
from qwen_aio.core import Chunk, ContextLimits, Prompt, Segments
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.kv.pool import KvPool
from qwen_aio.engine.kv.radix_cache import RadixCache
from qwen_aio.engine.model.attention import gather_rows, ordered
from qwen_aio.engine.model.forward import Qwen2
from qwen_aio.engine.requests import FAILED, Counters, Generate, Output, Pin, Pinned, Score, Work
from qwen_aio.engine.sampler import Sampler
from qwen_aio.engine.scheduling.answer_sequence import AnswerSequence
from qwen_aio.engine.scheduling.coalescing import Coalescing
from qwen_aio.engine.scheduling.decision_sequence import DecisionSequence
from qwen_aio.engine.scheduling.drafter import Drafter
from qwen_aio.engine.scheduling.label_tree import LabelTree
from qwen_aio.engine.scheduling.scheduler import Scheduler, Span
from qwen_aio.engine.scheduling.sequence import Sequence
from qwen_aio.engine.scoring import token_logprobs
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.engine.text.truncation import Truncated, truncate
from qwen_aio.errors import InvalidRequest, InvalidSettings, QwenAioError, RequestFailed

LOGIT_ROWS = 64  # rows multiplied with the output matrix at once: bounds the memory that a long continuation takes
MIN_CONTEXT = 128  # less is no use to anybody
MIN_SHARED = 8  # tokens: another stretch to look at costs about what computing so many does

logger = logging.getLogger(__name__)


class Engine:
    """One model, its memory, and everybody who is computed. Used by one thread."""

    def __init__(
        self,
        model: Qwen2,
        tokenizer: Tokenizer,
        limits: EngineLimits,
        *,
        clock: Callable[[], float] = time.perf_counter,
        draw_seed: Callable[[], int] = lambda: secrets.randbits(63),
    ) -> None:
        """Raises InvalidSettings if the memory holds no useful context."""
        self.limits = limits
        self.clock = clock
        self._draw_seed = draw_seed
        self._model = model
        self._tokenizer = tokenizer
        num_slots = KvPool.num_slots(model.config, kv_mb=limits.kv_mb)
        self._cache = RadixCache(num_slots, min_shared=MIN_SHARED)
        self._scheduler = Scheduler(self._cache, limits)
        self._duplicates = Coalescing()
        self._guesser = Drafter(max_rows=min(limits.max_guess_rows, limits.max_batch_tokens))
        max_context = min(self._scheduler.max_rows, model.config.max_positions)
        self.context = ContextLimits(max_context, answer_tokens=min(max_context // 2, MAX_TOKENS))
        if max_context < MIN_CONTEXT:
            raise InvalidSettings(f"{limits.kv_mb} MB hold {num_slots} tokens, too few for one text; raise --kv-mb")
        self._memory = KvPool(model.config, num_slots)
        self._end_ids = tokenizer.end_ids | frozenset(model.config.eos_ids)
        self._answer_ids = tokenizer.text_ids | self._end_ids
        self._sampler = Sampler(self._answer_ids, vocab_size=model.config.vocab_size)
        self._outputs: list[Output] = []  # of those who were finished when they came; the next step gives them out
        self._num_completed = self._num_steps = self._num_generated = 0

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work or bool(self._outputs)

    @property
    def counters(self) -> Counters:
        return Counters(
            running=self._scheduler.num_running,
            completed=self._num_completed,
            steps=self._num_steps,
            generated_tokens=self._num_generated,
            guessed_tokens=self._guesser.num_guessed,
            accepted_tokens=self._guesser.num_accepted,
        )

    def add(self, request_id: str, work: Work, *, arrived_s: float) -> None:
        """Queue a request; ids are unique among those not finished, `arrived_s` is a time of `clock`.

        How many may wait is the caller's business. Raises InvalidRequest, ContextTooSmall.
        """
        match work:
            case Score():
                decision = self._decision(request_id, work, arrived_s=arrived_s)
                if not self._duplicates.join(decision):
                    self._scheduler.add(decision)
            case Generate():
                self._begin(self._answer(request_id, work, arrived_s=arrived_s))
            case Pin(head):
                self._scheduler.add(self._beginning(request_id, head, arrived_s=arrived_s))

    def abort(self, request_id: str) -> None:
        """Forget a request in whatever phase it is; one that is not here any more is ignored."""
        if not self._duplicates.leave(request_id):
            self._scheduler.abort(request_id)
        self._outputs = [output for output in self._outputs if output.request_id != request_id]

    @torch.inference_mode()
    def step(self) -> list[Output]:
        """Compute the next rows; what came of them."""
        given, self._outputs = self._outputs, []
        self._scheduler.admit(now_s=self.clock())
        spans = ordered(self._guesser.lengthen(self._scheduler.next_batch()))
        if not spans:
            return given
        started_s = self.clock()
        chunks = self._take_logits(spans, self._compute(spans))
        self._guesser.learn(spans, seconds=self.clock() - started_s)
        self._num_steps += 1
        running = [span.sequence for span in spans if span.sequence.is_running]  # the others have failed
        finished = [output for sequence in running if sequence.is_finished for output in self._finish(sequence)]
        return [*given, *chunks, *finished]

    def check_integrity(self) -> None:
        """AssertionError if a slot is lost or counted twice."""
        self._cache.check_integrity()

    def _decision(self, request_id: str, work: Score, *, arrived_s: float) -> DecisionSequence:
        if not work.continuations:
            raise InvalidRequest("there is nothing to score: no continuation was given")
        encoded = [self._tokenizer.encode_text(text) for text in work.continuations]
        if not all(encoded):
            raise InvalidRequest("an empty continuation cannot be scored")
        tree = LabelTree(encoded)
        room = min(self.context.tokens, self._scheduler.max_decision_rows)
        if tree.num_rows > room // 2:
            raise InvalidRequest(f"the continuations take {tree.num_rows} tokens; at most {room // 2} do")
        fitted = self._fit(work.prompt, room=room - tree.num_rows)
        return DecisionSequence(request_id, fitted, texts=work.continuations, tree=tree, arrived_s=arrived_s)

    def _answer(self, request_id: str, work: Generate, *, arrived_s: float) -> AnswerSequence:
        check_sampling(work.sampling, max_tokens=self.context.answer_tokens)
        foreign = sorted(set(work.resume) - self._answer_ids)
        if foreign:
            raise InvalidRequest(f"this model's answers hold no token {foreign[0]}", param="resume")
        seed = self._draw_seed() if work.sampling.seed is None else work.sampling.seed
        return AnswerSequence(
            request_id,
            self._fit(work.prompt, room=self.context.tokens - work.sampling.max_tokens),
            sampling=work.sampling,
            seed=seed,
            resume=work.resume,
            tokenizer=self._tokenizer,
            end_ids=self._end_ids,
            arrived_s=arrived_s,
        )

    def _begin(self, answer: AnswerSequence) -> None:
        """Queue `answer`; unless its worker was lost just before it could say that this was all."""
        if answer.is_finished:
            self._outputs.append(Output(answer.request_id, answer.closing_chunk(now_s=self.clock())))
            self._num_completed += 1
        else:
            self._scheduler.add(answer)

    def _beginning(self, request_id: str, head: Segments, *, arrived_s: float) -> Sequence:
        fitted = self._fit(Prompt(head, (), ()), room=self.context.tokens)
        if not fitted.ids:
            raise InvalidRequest("an empty beginning cannot be pinned")
        ids = list(fitted.ids)
        return Sequence(request_id, ids, len(ids), len(ids), arrived_s, fitted.cuts)

    def _fit(self, prompt: Prompt, *, room: int) -> Truncated:
        return truncate(prompt, tokenizer=self._tokenizer, room=room)

    def _compute(self, spans: list[Span]) -> Tensor:
        """(rows wanted, hidden): what the model makes of them."""
        rows = gather_rows(spans, self._memory)
        hidden = self._model.forward(rows, self._memory)
        for span in spans:
            span.sequence.advance(span.end)
        return hidden

    def _take_logits(self, spans: list[Span], hidden: Tensor) -> list[Output]:
        """Every row that wanted to know gets its logits."""
        wanted = [(span.sequence, row) for span in spans for row in span.logit_rows]
        outputs: list[Output] = []
        for start in range(0, len(wanted), LOGIT_ROWS):
            logits = self._model.logits(hidden[start : start + LOGIT_ROWS])
            for (sequence, row), row_logits in zip(wanted[start : start + LOGIT_ROWS], logits, strict=True):
                if sequence.is_running:
                    outputs.extend(self._take_row(sequence, row, row_logits))
        return outputs

    def _take_row(self, sequence: Sequence, row: int, logits: Tensor) -> list[Output]:
        try:
            match sequence:
                case DecisionSequence():
                    sequence.record(row, token_logprobs(logits, sequence.tokens_after(row)))
                case AnswerSequence() if row < sequence.num_computed:  # not behind a guess that did not come true
                    return [Output(sequence.request_id, self._next_token(sequence, logits))]
        except Exception as exc:  # broad: what goes wrong with one sequence ends no other
            return self._fail(sequence, exc)
        return []

    def _next_token(self, answer: AnswerSequence, logits: Tensor) -> Chunk:
        index, seen = answer.num_generated, answer.seen_ids
        token = self._sampler.pick(logits, answer.sampling, seen_ids=seen, seed=answer.seed, index=index)
        self._num_generated += 1
        return answer.accept(token, now_s=self.clock())

    def _fail(self, sequence: Sequence, failure: Exception) -> list[Output]:
        """End one sequence with an error, and no other: the next one that asks the same is computed anew."""
        logger.error("request failed id=%s", sequence.request_id, exc_info=failure)
        self._scheduler.discard(sequence)
        if isinstance(sequence, DecisionSequence) and (heir := self._duplicates.fail(sequence)):
            self._scheduler.add(heir)
        return [Output(sequence.request_id, RequestFailed(FAILED))]

    def _finish(self, sequence: Sequence) -> list[Output]:
        """Take a sequence out of the run; what there is to say about it."""
        if isinstance(sequence, DecisionSequence):
            return self._decide(sequence)
        self._retire(sequence)
        if isinstance(sequence, AnswerSequence):
            return []  # its last chunk has said it
        return [Output(sequence.request_id, self._pin(sequence.ids))]

    def _decide(self, leader: DecisionSequence) -> list[Output]:
        """The scores for everybody who asked for them."""
        now_s = self.clock()
        try:
            scores = leader.scores(now_s=now_s)
        except Exception as exc:  # broad: see _take_row
            return self._fail(leader, exc)
        self._retire(leader)
        followers = self._duplicates.finish(leader)
        self._num_completed += len(followers)
        return [
            Output(leader.request_id, scores),
            *(Output(other.request_id, other.follow(leader, now_s=now_s)) for other in followers),
        ]

    def _retire(self, sequence: Sequence) -> None:
        self._scheduler.retire(sequence)
        self._num_completed += 1

    def _pin(self, ids: list[int]) -> Pinned | QwenAioError:
        """At most a quarter of the memory may be pinned, so that the longest request always finds room."""
        pinned, allowed = self._cache.num_to_pin(ids), self._cache.num_slots // 4
        if pinned > allowed:
            return InvalidSettings(
                f"the fixed prompts of all tasks need {pinned} tokens of memory, {allowed} are allowed; raise --kv-mb"
            )
        self._cache.pin(ids)
        return Pinned(len(ids))
