"""The engine: requests in, one step after another, outputs out.

A step asks the scheduler for rows, runs the model over them, and hands the logits to their
sequences. Knows no torch, no threads, no tasks, no HTTP: service.py owns the thread it runs on.
"""

from __future__ import annotations

import logging
import time
from collections import abc
from functools import partial

import numpy as np
from numpy.typing import NDArray

from qwen_aio.bounds import MAX_TOKENS, check_sampling
from qwen_aio.core import ContextLimits, Prompt, Segments
from qwen_aio.engine.arrival import answer_of, tree_of
from qwen_aio.engine.config import MIN_CONTEXT, EngineLimits
from qwen_aio.engine.forward_model import ForwardModel, Pool
from qwen_aio.engine.kv.radix_cache import RadixCache
from qwen_aio.engine.picking import TokenPicker
from qwen_aio.engine.requests import FAILED, Counters, Generate, Item, Output, Pin, Pinned, Score, Work
from qwen_aio.engine.sampler import Sampler, token_logprobs
from qwen_aio.engine.scheduling.answer_sequence import AnswerSequence
from qwen_aio.engine.scheduling.coalescing import Coalescing
from qwen_aio.engine.scheduling.decision_sequence import DecisionSequence
from qwen_aio.engine.scheduling.drafter import Drafter
from qwen_aio.engine.scheduling.scheduler import Scheduler, Span, in_batch_order
from qwen_aio.engine.scheduling.sequence import Sequence
from qwen_aio.engine.text.detokenizer import Detokenizer
from qwen_aio.engine.text.grammar import Grammar, GrammarCompiler
from qwen_aio.engine.text.token_set import TokenSet
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.engine.text.truncation import truncate
from qwen_aio.errors import InvalidRequest, InvalidSettings, QwenAioError, RequestFailed

LOGIT_ROWS = 64  # rows multiplied with the output matrix at once: bounds the memory of logits
MIN_SHARED = 8  # tokens: attending to one more extent costs about as much as computing so many

logger = logging.getLogger(__name__)


class Engine:
    """One model, its memory and its sequences. Used by one thread."""

    def __init__(
        self,
        model: ForwardModel[Pool],
        tokenizer: Tokenizer,
        limits: EngineLimits,
        *,
        clock: abc.Callable[[], float] = time.perf_counter,
    ) -> None:
        """Raises InvalidSettings if the memory is too small for a useful context."""
        self.limits = limits
        self.clock = clock
        self._tokenizer = tokenizer
        num_slots = limits.num_slots(model.token_bytes)
        self._cache = RadixCache(num_slots, min_shared=MIN_SHARED)
        self._scheduler = Scheduler(self._cache, limits)
        self._coalescing = Coalescing()
        self._drafter = Drafter(max_rows=min(limits.max_draft_rows, limits.max_batch_tokens))
        max_context = min(self._scheduler.max_rows, model.config.max_positions)
        if max_context < MIN_CONTEXT:
            raise InvalidSettings(f"{limits.kv_mb} MB hold {num_slots} tokens, too few for one text; raise --kv-mb")
        self.context = ContextLimits(max_context, answer_tokens=min(max_context // 2, MAX_TOKENS))
        self._forward = partial(model.forward, pool=model.new_pool(num_slots))
        self._logits = model.logits
        self._end_ids = tokenizer.end_ids | frozenset(model.config.eos_ids)
        self._answer_ids = TokenSet((*tokenizer.text_ids, *self._end_ids))
        self._grammars = GrammarCompiler(tokenizer, end_ids=self._end_ids)
        self._picker = TokenPicker(Sampler(self._answer_ids, vocab_size=model.config.vocab_size))
        self._outputs: list[Output] = []  # of the running step, and of answers finished on arrival
        self._num_completed = self._num_steps = 0

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work or bool(self._outputs)

    @property
    def counters(self) -> Counters:
        return Counters(
            running=self._scheduler.num_running,
            completed=self._num_completed,
            steps=self._num_steps,
            generated_tokens=self._picker.num_generated,
            draft_tokens=self._drafter.num_drafted,
            accepted_tokens=self._drafter.num_accepted,
        )

    def encode(self, prompt: Prompt) -> list[int]:
        """The token ids of the whole `prompt`, in any thread. Raises InvalidRequest."""
        return self._tokenizer.encode(prompt.segments)

    def decode(self, token_ids: abc.Sequence[int], *, stop: abc.Sequence[str]) -> str:
        """The text of an answer that is certain after these tokens, in any thread; `stop` as in its Sampling."""
        detokenizer = Detokenizer((*stop, *self._tokenizer.special_texts))
        return "".join(detokenizer.feed(self._tokenizer.token_bytes(each)) for each in token_ids)

    def divide(self, text: str) -> list[str]:
        """`text`, divided where its tokens begin, in any thread."""
        return self._tokenizer.divide(text)

    def compile(self, json_schema: str) -> Grammar:
        """What makes an answer keep to the schema, in any thread, one at a time. Raises InvalidRequest."""
        return self._grammars.compile(json_schema)

    def add(self, request_id: str, work: Work, *, arrived_s: float) -> None:
        """Queue a request; ids are unique among unfinished ones, `arrived_s` is a time of `clock`.

        The caller bounds the queue. Raises InvalidRequest, ContextTooSmall.
        """
        match work:
            case Score():
                decision = self._decision(request_id, work, arrived_s=arrived_s)
                if not self._coalescing.join(decision):
                    self._scheduler.add(decision)
            case Generate():
                self._start(self._answer(request_id, work, arrived_s=arrived_s))
            case Pin(head):
                self._scheduler.add(self._prefix(request_id, head, arrived_s=arrived_s))

    def abort(self, request_id: str) -> None:
        """Drop a request in any phase; a finished one is ignored."""
        if not self._coalescing.leave(request_id):
            self._scheduler.abort(request_id)
        self._outputs = [output for output in self._outputs if output.request_id != request_id]

    def step(self) -> list[Output]:
        """Compute the next rows and return their outputs."""
        self._scheduler.admit(now_s=self.clock())
        spans = in_batch_order(self._drafter.add_drafts(self._scheduler.next_batch()))
        if spans:
            self._run(spans)
        outputs, self._outputs = self._outputs, []
        return outputs

    def check_integrity(self) -> None:
        """AssertionError if a slot is lost or counted twice."""
        self._cache.check_integrity()

    def _decision(self, request_id: str, work: Score, *, arrived_s: float) -> DecisionSequence:
        room = min(self.context.tokens, self._scheduler.max_decision_rows)
        tree = tree_of([self._tokenizer.encode_text(text) for text in work.continuations], room=room)
        truncated = truncate(work.prompt, tokenizer=self._tokenizer, room=room - tree.num_rows)
        return DecisionSequence(request_id, truncated, texts=work.continuations, tree=tree, arrived_s=arrived_s)

    def _answer(self, request_id: str, work: Generate, *, arrived_s: float) -> AnswerSequence:
        check_sampling(work.sampling, max_tokens=self.context.answer_tokens)
        room = self.context.tokens - work.sampling.max_tokens
        return answer_of(
            request_id,
            work,
            truncate(work.prompt, tokenizer=self._tokenizer, room=room),
            tokenizer=self._tokenizer,
            answer_ids=self._answer_ids,
            end_ids=self._end_ids,
            arrived_s=arrived_s,
        )

    def _start(self, answer: AnswerSequence) -> None:
        """Queue `answer`, unless it is resumed after its last token."""
        if answer.is_finished:
            self._emit(answer, answer.resumed_completion(now_s=self.clock()))
            self._num_completed += 1
        else:
            self._scheduler.add(answer)

    def _prefix(self, request_id: str, head: Segments, *, arrived_s: float) -> Sequence:
        truncated = truncate(Prompt(head, (), ()), tokenizer=self._tokenizer, room=self.context.tokens)
        if not truncated.ids:
            raise InvalidRequest("an empty beginning cannot be pinned")
        ids = list(truncated.ids)
        return Sequence(request_id, ids, len(ids), len(ids), arrived_s, truncated.truncation)

    def _emit(self, sequence: Sequence, *items: Item | QwenAioError) -> None:
        self._outputs.extend(Output(sequence.request_id, item) for item in items)

    def _run(self, spans: list[Span]) -> None:
        started_s = self.clock()
        hidden = self._forward(spans)
        for span in spans:
            span.sequence.advance(span.end)
        self._take_logits(spans, hidden)
        self._drafter.learn(spans, seconds=self.clock() - started_s)
        self._num_steps += 1
        for span in spans:
            if span.sequence.is_running and span.sequence.is_finished:  # one that has failed no longer runs
                self._finish(span.sequence)

    def _take_logits(self, spans: list[Span], hidden: NDArray[np.float32]) -> None:
        """Give each logit row's logits to its sequence; `hidden`: (num_logit_rows, hidden)."""
        rows = [(span.sequence, row) for span in spans for row in span.logit_rows]
        for start in range(0, len(rows), LOGIT_ROWS):
            logits = self._logits(hidden[start : start + LOGIT_ROWS])
            for (sequence, row), row_logits in zip(rows[start : start + LOGIT_ROWS], logits, strict=True):
                if sequence.is_running:
                    self._take_row(sequence, row, row_logits)

    def _take_row(self, sequence: Sequence, row: int, logits: NDArray[np.float32]) -> None:
        try:
            match sequence:
                case DecisionSequence():
                    sequence.record(row, token_logprobs(logits, sequence.tokens_after(row)))
                case AnswerSequence() if row < sequence.num_computed:  # not after a rejected draft token
                    self._emit(sequence, *self._picker.extend(sequence, logits, now_s=self.clock()))
        except Exception as exc:  # broad: one failing sequence ends no other
            self._fail(sequence, exc)

    def _fail(self, sequence: Sequence, failure: Exception) -> None:
        """End one sequence with an error; the next one with its question is computed anew."""
        logger.error("request failed id=%s", sequence.request_id, exc_info=failure)
        self._scheduler.discard(sequence)
        if isinstance(sequence, DecisionSequence) and (follower := self._coalescing.fail(sequence)):
            self._scheduler.add(follower)
        self._emit(sequence, failure if isinstance(failure, InvalidRequest) else RequestFailed(FAILED))

    def _finish(self, sequence: Sequence) -> None:
        if isinstance(sequence, DecisionSequence):
            self._decide(sequence)
            return
        self._retire(sequence)
        if not sequence.is_answer:  # an answer's Completion came with its last token
            self._emit(sequence, self._pin(sequence.ids))

    def _decide(self, leader: DecisionSequence) -> None:
        """Emit the scores, for the leader and its followers."""
        now_s = self.clock()
        try:
            scores = leader.scores(now_s=now_s)
        except Exception as exc:  # broad: see _take_row
            self._fail(leader, exc)
            return
        self._retire(leader)
        self._emit(leader, scores)
        for follower in self._coalescing.finish(leader):
            self._emit(follower, follower.follow(leader, now_s=now_s))
            self._num_completed += 1

    def _retire(self, sequence: Sequence) -> None:
        self._scheduler.retire(sequence)
        self._num_completed += 1

    def _pin(self, ids: list[int]) -> Pinned | QwenAioError:
        """Pin a cached prefix: at most a quarter of the memory, so that any request fits."""
        pinned, allowed = self._cache.num_to_pin(ids), self._cache.num_slots // 4
        if pinned > allowed:
            return InvalidSettings(
                f"the pinned prefixes of all tasks need {pinned} tokens of memory, {allowed} are allowed; raise --kv-mb"
            )
        self._cache.pin(ids)
        return Pinned(len(ids))
