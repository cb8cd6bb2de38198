"""The engine over transformers: the same requests and outputs as engine.Engine, correct before fast.

A step computes a chunk of the oldest prompt and one token of every answer that decodes. Requests are
admitted in the order in which they came. Knows no threads, no tasks, no HTTP.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import DynamicCache

from qwen_aio.bounds import MAX_TOKENS, check_sampling
from qwen_aio.core import ContextLimits, Prompt, Segments
from qwen_aio.engine.arrival import answer_of, tree_of
from qwen_aio.engine.config import MIN_CONTEXT, EngineLimits
from qwen_aio.engine.foreign.model import ForeignModel
from qwen_aio.engine.foreign.prefixes import KeptPrefixes
from qwen_aio.engine.foreign.prompts import ForeignPrompts
from qwen_aio.engine.foreign.scoring import score_tree
from qwen_aio.engine.picking import TokenPicker
from qwen_aio.engine.requests import FAILED, Counters, Generate, Item, Output, Pin, Pinned, Score, Work
from qwen_aio.engine.sampler import Sampler
from qwen_aio.engine.scheduling.answer_sequence import AnswerSequence
from qwen_aio.engine.scheduling.coalescing import Coalescing
from qwen_aio.engine.scheduling.decision_sequence import DecisionSequence
from qwen_aio.engine.scheduling.sequence import Sequence as Computed
from qwen_aio.engine.text.detokenizer import Detokenizer
from qwen_aio.engine.text.grammar import Grammar, GrammarCompiler
from qwen_aio.engine.text.token_set import TokenSet
from qwen_aio.engine.text.truncation import truncate
from qwen_aio.errors import InvalidRequest, InvalidSettings, QwenAioError, RequestFailed

logger = logging.getLogger(__name__)


class TransformersEngine:
    """One model, its caches and its sequences. Used by one thread.

    Of `kv_mb`, a quarter may be pinned, and no sequence takes more than half. Scoring labels of several
    tokens and decoding several answers copy keys and values for a moment: up to a quarter more, or one copy.
    """

    def __init__(
        self,
        model: ForeignModel,
        prompts: ForeignPrompts,
        limits: EngineLimits,
        *,
        end_ids: frozenset[int],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Raises InvalidSettings if the memory is too small for a useful context."""
        self.limits = limits
        self.clock = clock
        self._model = model
        self._prompts = prompts
        self._tokenizer = prompts.tokenizer
        self._num_slots = limits.num_slots(model.token_bytes)
        max_context = min(limits.max_context, model.max_positions, self._num_slots // 2)
        if max_context < MIN_CONTEXT:
            raise InvalidSettings(
                f"{limits.kv_mb} MB hold {self._num_slots} tokens, too few for one text; raise --kv-mb"
            )
        self.context = ContextLimits(max_context, answer_tokens=min(max_context // 2, MAX_TOKENS))
        self._end_ids = end_ids
        every = self._tokenizer.text_ids | self._tokenizer.added_ids
        self._answer_ids = TokenSet(token for token in every | end_ids if token < model.vocab_size)
        self._grammars = GrammarCompiler(self._tokenizer, end_ids=end_ids)
        self._picker = TokenPicker(Sampler(self._answer_ids, vocab_size=model.vocab_size))
        self._coalescing = Coalescing()
        self._kept = KeptPrefixes(
            can_crop=model.can_crop, copy_cache=lambda cache, length: model.copy_of(cache, length=length)
        )
        self._waiting: list[Computed] = []  # in the order in which they came, like the next
        self._running: dict[Computed, DynamicCache] = {}
        self._outputs: list[Output] = []  # of the running step, and of answers finished on arrival
        self._num_completed = self._num_steps = 0

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running or self._outputs)

    @property
    def counters(self) -> Counters:
        return Counters(
            running=len(self._running),
            completed=self._num_completed,
            steps=self._num_steps,
            generated_tokens=self._picker.num_generated,
        )

    def encode(self, prompt: Prompt) -> list[int]:
        """The token ids of the whole `prompt`, in any thread. Raises InvalidRequest."""
        return self._tokenizer.encode(self._prompts.segments(prompt))

    def decode(self, token_ids: Sequence[int], *, stop: Sequence[str]) -> str:
        """The text of an answer that is certain after these tokens, in any thread; `stop` as in its Sampling."""
        detokenizer = Detokenizer(stop)
        return "".join(detokenizer.feed(self._tokenizer.token_bytes(each)) for each in token_ids)

    def divide(self, text: str) -> list[str]:
        """`text`, divided where its tokens begin, in any thread."""
        return self._tokenizer.divide(text)

    def compile(self, json_schema: str) -> Grammar:
        """What makes an answer keep to the schema, in any thread, one at a time. Raises InvalidRequest."""
        if not self._end_ids:
            raise InvalidRequest("this model names no token that ends an answer", param="json_schema")
        return self._grammars.compile(json_schema)

    def add(self, request_id: str, work: Work, *, arrived_s: float) -> None:
        """Queue a request; ids are unique among unfinished ones, `arrived_s` is a time of `clock`.

        The caller bounds the queue. Raises InvalidRequest, ContextTooSmall.
        """
        match work:
            case Score():
                decision = self._decision(request_id, work, arrived_s=arrived_s)
                if not self._coalescing.join(decision):
                    self._waiting.append(decision)
            case Generate():
                self._start(self._answer(request_id, work, arrived_s=arrived_s))
            case Pin(head):
                self._start_prefix(request_id, self._prompts.head(head), arrived_s=arrived_s)

    def abort(self, request_id: str) -> None:
        """Drop a request in any phase; a finished one is ignored."""
        if not self._coalescing.leave(request_id):
            self._waiting = [each for each in self._waiting if each.request_id != request_id]
            self._running = {each: cache for each, cache in self._running.items() if each.request_id != request_id}
        self._outputs = [output for output in self._outputs if output.request_id != request_id]

    def step(self) -> list[Output]:
        """Compute a chunk of one prompt and a token of each answer, and return their outputs."""
        self._admit()
        answers = [each for each in self._running if isinstance(each, AnswerSequence) and _is_read(each)]
        prompt = next((each for each in self._running if not _is_read(each)), None)
        if prompt is not None:
            self._read_on(prompt)
        if answers:
            self._decode(answers)
        self._num_steps += bool(prompt or answers)
        outputs, self._outputs = self._outputs, []
        return outputs

    def check_integrity(self) -> None:
        """AssertionError if more is held than the memory allows, or a cache and its sequence disagree."""
        assert self._num_held <= self._num_slots
        for sequence, cache in self._running.items():
            assert cache.get_seq_length() == sequence.num_computed

    # ---- on arrival ----

    def _decision(self, request_id: str, work: Score, *, arrived_s: float) -> DecisionSequence:
        room = self.context.tokens
        tree = tree_of(self._prompts.continuations(work.prompt, work.continuations), room=room)
        truncated = self._prompts.truncate(work.prompt, room=room - tree.num_rows)
        if not truncated.ids:
            raise InvalidRequest("an empty prompt has no continuation")
        return DecisionSequence(request_id, truncated, texts=work.continuations, tree=tree, arrived_s=arrived_s)

    def _answer(self, request_id: str, work: Generate, *, arrived_s: float) -> AnswerSequence:
        check_sampling(work.sampling, max_tokens=self.context.answer_tokens)
        truncated = self._prompts.truncate(work.prompt, room=self.context.tokens - work.sampling.max_tokens)
        if not truncated.ids:
            raise InvalidRequest("an empty prompt cannot be continued")
        return answer_of(
            request_id,
            work,
            truncated,
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
            self._waiting.append(answer)

    def _start_prefix(self, request_id: str, segments: Segments, *, arrived_s: float) -> None:
        """Queue a prefix, unless all conversations of this family begin with what is said in them."""
        truncated = truncate(Prompt(segments, (), ()), tokenizer=self._tokenizer, room=self.context.tokens)
        ids = list(truncated.ids)
        prefix = Computed(request_id, ids, len(ids), len(ids), arrived_s, truncated.truncation)
        if ids:
            self._waiting.append(prefix)
        else:
            self._emit(prefix, Pinned(0))

    # ---- in a step ----

    @property
    def _num_running(self) -> int:
        """Tokens that the running sequences may come to hold."""
        return sum(sequence.num_rows for sequence in self._running)

    @property
    def _num_held(self) -> int:
        return self._num_running + self._kept.num_pinned + self._kept.num_recent

    def _admit(self) -> None:
        """Start what fits, in order; an answer that must wait for its place lets decisions pass."""
        for sequence in list(self._waiting):
            if len(self._running) == self.limits.max_running:
                return
            if sequence.is_answer and sum(each.is_answer for each in self._running) == self.limits.max_answers:
                continue
            room = self._num_slots - self._kept.num_pinned - self._num_running - sequence.num_rows
            if room < 0:
                return
            self._waiting.remove(sequence)
            self._run(sequence)
            self._kept.shrink(room)

    def _run(self, sequence: Computed) -> None:
        cache, length = self._kept.begun(sequence.given_ids) or (self._model.new_cache(), 0)
        sequence.admitted_s = self.clock()
        sequence.num_computed, sequence.num_cached = length, min(length, sequence.num_prompt)
        self._running[sequence] = cache

    def _read_on(self, sequence: Computed) -> None:
        """Compute the next chunk of its prompt, and at the end of it what comes after."""
        end = min(sequence.num_computed + self.limits.max_batch_tokens, _num_given(sequence))
        chunk = sequence.ids[sequence.num_computed : end]
        logits = self._model.forward([chunk], self._running[sequence], num_logits=1)[0, -1]
        sequence.advance(end)
        if not _is_read(sequence):
            return
        match sequence:
            case DecisionSequence():
                self._decide(sequence, logits)
            case AnswerSequence():
                self._extend(sequence, logits)
            case _:
                self._pin(sequence)

    def _decode(self, answers: list[AnswerSequence]) -> None:
        caches = [self._running[answer] for answer in answers]
        newest = [answer.ids[-1] for answer in answers]
        logits = self._model.decode(newest, caches, most=self._num_slots // 4)
        for answer, row in zip(answers, logits, strict=True):
            answer.advance(len(answer.ids))
            self._extend(answer, row)

    def _extend(self, answer: AnswerSequence, logits: NDArray[np.float32]) -> None:
        try:
            self._emit(answer, *self._picker.extend(answer, logits, now_s=self.clock()))
        except Exception as exc:  # broad: one failing sequence ends no other
            self._fail(answer, exc)
            return
        if answer.is_finished:
            self._retire(answer)

    def _decide(self, leader: DecisionSequence, logits: NDArray[np.float32]) -> None:
        """Emit the scores, for the leader and its followers."""
        try:
            most = self._num_slots // 4 // leader.num_rows
            score_tree(leader, logits, self._model, self._running[leader], max_copies=most)
            now_s = self.clock()
            scores = leader.scores(now_s=now_s)
        except Exception as exc:  # broad: see _extend
            self._fail(leader, exc)
            return
        self._retire(leader)
        self._emit(leader, scores)
        for follower in self._coalescing.finish(leader):
            self._emit(follower, follower.follow(leader, now_s=now_s))
            self._num_completed += 1

    def _pin(self, sequence: Computed) -> None:
        """Keep it for ever: at most a quarter of the memory, so that any request fits."""
        cache = self._running.pop(sequence)
        self._num_completed += 1
        pinned = self._kept.num_pinned + (0 if self._kept.is_pinned(sequence.ids) else len(sequence.ids))
        if pinned > self._num_slots // 4:
            self._emit(
                sequence,
                InvalidSettings(
                    f"the pinned prefixes of all tasks need {pinned} tokens of memory,"
                    f" {self._num_slots // 4} are allowed; raise --kv-mb"
                ),
            )
            return
        self._kept.pin(sequence.ids, cache)
        self._emit(sequence, Pinned(len(sequence.ids)))

    def _retire(self, sequence: Computed) -> None:
        """End a running sequence; what it has computed is kept for prompts that begin alike."""
        cache = self._running.pop(sequence)
        self._kept.keep(sequence.ids[: sequence.num_computed], cache)
        self._num_completed += 1

    def _fail(self, sequence: Computed, failure: Exception) -> None:
        """End one sequence with an error; the next one with its question is computed anew."""
        logger.error("request failed id=%s", sequence.request_id, exc_info=failure)
        del self._running[sequence]
        if isinstance(sequence, DecisionSequence) and (follower := self._coalescing.fail(sequence)):
            self._waiting.append(follower)
        self._emit(sequence, failure if isinstance(failure, InvalidRequest) else RequestFailed(FAILED))

    def _emit(self, sequence: Computed, *items: Item | QwenAioError) -> None:
        self._outputs.extend(Output(sequence.request_id, item) for item in items)


def _num_given(sequence: Computed) -> int:
    """The tokens to compute before anything comes of them."""
    return len(sequence.given_ids)


def _is_read(sequence: Computed) -> bool:
    return sequence.num_computed >= _num_given(sequence)
