"""An answer that is JSON: which tokens may follow, by llguidance (extra `json`, loaded when first needed).

Compilation and every step are bounded: a schema that needs more is refused, if need be in the middle of
its answer. Knows no torch and no sampling.
"""

from __future__ import annotations

from collections import abc
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qwen_aio.engine.text.json_schema import read_schema, refused_schema
from qwen_aio.engine.text.token_codec import TokenCodec
from qwen_aio.errors import InvalidRequest

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer
    from llguidance._lib import JsonCompileOptions

# As json.dumps writes it; a small model would go on with white space for ever where it may.
LAYOUT: JsonCompileOptions = {
    "item_separator": ", ",
    "key_separator": ": ",
    "whitespace_flexible": False,
    "lenient": False,
}
MAX_ERROR_CHARS = 200


class Grammar:
    """How far one answer has come. Created in any thread, then owned by the engine thread."""

    def __init__(self, matcher: LLMatcher) -> None:
        """Raises InvalidRequest if the schema was not understood, or is too large."""
        self._matcher = matcher
        self._check()

    def allowed(self) -> NDArray[np.bool_]:
        """(tokenizer's vocab,): what may follow; an end only where the JSON is whole. Raises InvalidRequest."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        return np.unpackbits(bits, bitorder="little").view(np.bool_)

    def accept(self, token: int) -> None:
        """Go on after `token`. Raises InvalidRequest if it does not follow."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise refused_schema(self._matcher.get_error().partition("\n")[0][:MAX_ERROR_CHARS])


class GrammarCompiler:
    """Compiles JSON schemas; one at a time."""

    def __init__(self, tokenizer: TokenCodec, *, end_ids: abc.Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._end_ids = [token for token in sorted(end_ids) if token < tokenizer.vocab_size]
        self._vocabulary: LLTokenizer | None = None  # made once, with the first schema

    def compile(self, schema: str) -> Grammar:
        """`schema` is written as JSON. Raises InvalidRequest, also where llguidance is not installed."""
        try:
            from llguidance import LLMatcher
        except ImportError as exc:
            problem = (
                "this server cannot force an answer to be JSON; it needs the extra json: pip install 'qwen-aio[json]'"
            )
            raise InvalidRequest(problem, param="json_schema") from exc
        try:
            grammar = LLMatcher.grammar_from_json_schema(read_schema(schema), overrides=LAYOUT)
        except ValueError as exc:
            raise refused_schema(str(exc)[:MAX_ERROR_CHARS]) from exc
        self._vocabulary = self._vocabulary or self._read_vocabulary()
        return Grammar(LLMatcher(self._vocabulary, grammar, log_level=0, limits=_limits()))

    def _read_vocabulary(self) -> LLTokenizer:
        from llguidance import LLTokenizer, TokenizerWrapper

        vocabulary = _Vocabulary(self._tokenizer, end_id=self._end_ids[0])
        return LLTokenizer(TokenizerWrapper(vocabulary), eos_token=self._end_ids, slices=LLTokenizer.json_slices())


class _Vocabulary:
    """The tokenizer, as llguidance reads one."""

    bos_token_id = None

    def __init__(self, tokenizer: TokenCodec, *, end_id: int) -> None:
        self.eos_token_id = end_id
        self.tokens = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
        self.special_token_ids = sorted(tokenizer.added_ids)
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode_text(text)


def _limits() -> LLParserLimits:
    """The slowest of many schemas made to be slow took 0.2 s and 45 MB to compile; a step, a few ms."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=500_000,
        step_lexer_fuel=100_000,
        step_max_items=20_000,
        max_lexer_states=20_000,
        max_grammar_size=100_000,
        verbose_errors=False,
    )
