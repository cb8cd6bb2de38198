"""Which phrases of a text are left out to explain a decision, and the sentence about what that shows. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qwen_aio.core import Task
from qwen_aio.language import language_of
from qwen_aio.result import Decision, Phrase

MAX_PHRASES = 6  # what costs about three decisions, see docs/trust.md
MAX_DIVIDED_CHARS = 1_000  # the rest of a longer text belongs to its last phrase
NAMED = 2  # phrases of each sign in the sentence
MAX_NAMED_CHARS = 40
_PARTS = re.compile(r"\w+(?:['’]\w+)*|[^\w]+")
_HAN = re.compile(r"[\u3400-\u9fff]")
_IN_LETTERS = re.compile(r"[^\W\u3400-\u9fff]['’]?$")
_CLAUSE_END = re.compile(r"[,，。.!！?？;；:：、…~\n]\s*$")
_BELONGS_TO_THE_LAST = re.compile(r"^(?:\W+|[的了着过吗呢吧啊呀嘛哦哈]\W*)$")
_CONTRAST = re.compile(
    r"但是|但|不过|然而|可是|却|虽然|尽管|\b(?:but|however|although|though|yet|despite|except)\b", re.IGNORECASE
)
_NEGATION = re.compile(
    r"(?<!差)(?<!了)不(?!错|仅|但|过|管|论|同|断)太?|没有?(?!错|事)|\b(?:not|never|no|nothing|without|hardly)\b|\w+n['’]t\b",
    re.IGNORECASE,
)


def phrases_of(pieces: Sequence[str], most: int = MAX_PHRASES) -> list[str]:
    """At most `most` phrases that together are the text; `pieces` are the text at the model's own tokens.

    Clauses first: neighbours are joined while there are too many, the longest is divided while there are too few.
    """
    groups = _clauses(_words(pieces))
    while len(groups) > most:
        at = min(range(len(groups) - 1), key=lambda i: len(groups[i]) + len(groups[i + 1]))
        groups[at : at + 2] = [groups[at] + groups[at + 1]]
    while len(groups) < most and (longest := max(groups, key=len, default=[])) and len(longest) > 1:
        at, cut = groups.index(longest), _cut(longest)
        groups[at : at + 1] = [longest[:cut], longest[cut:]]
    return ["".join(group) for group in groups]


def reason_of(task: Task, decision: Decision, phrases: Sequence[Phrase], text: str) -> str:
    """The sentence, in the text's language; `phrases` are those of `decision`, strongest first."""
    notable = [phrase for phrase in phrases if phrase.is_notable]
    supporting = [_short(phrase.shown) for phrase in notable if phrase.weight > 0][:NAMED]
    opposing = [_short(phrase.shown) for phrase in notable if phrase.weight < 0][:NAMED]
    contrast, negation = _CONTRAST.search(text), _NEGATION.search(_CONTRAST.sub(" ", text))
    if language_of(text) == "zh":
        label = task.label(decision.best_label).text
        parts = [
            f"支持“{label}”的是{_quoted(supporting, '“{}”')}" if supporting else f"没有哪一处单独决定“{label}”",
            f"相反的是{_quoted(opposing, '“{}”')}" if opposing else "",
            f"含对比“{contrast[0]}”" if contrast else "",
            f"含否定“{negation[0]}”" if negation else "",
        ]
        return "；".join(filter(None, parts)) + "。"
    label = decision.best_label
    parts = [
        f"for {label}: {_quoted(supporting, '“{}” ').strip()}" if supporting else f"no phrase alone decides {label}",
        f"against it: {_quoted(opposing, '“{}” ').strip()}" if opposing else "",
        f"contrast “{contrast[0]}”" if contrast else "",
        f"negation “{negation[0]}”" if negation else "",
    ]
    return "; ".join(filter(None, parts))


def _short(text: str) -> str:
    return text if len(text) <= MAX_NAMED_CHARS else f"{text[:MAX_NAMED_CHARS]}…"


def _quoted(phrases: Sequence[str], form: str) -> str:
    return "".join(form.format(phrase) for phrase in phrases)


def _words(pieces: Sequence[str]) -> list[str]:
    """Words with the marks behind them: tokens, but never a part of a word in Latin letters."""
    words: list[str] = []
    for part in (part for piece in pieces for part in _PARTS.findall(piece)):
        if words and (_BELONGS_TO_THE_LAST.match(part) or _is_one_word(words[-1], part)):
            words[-1] += part
        else:
            words.append(part)
    return words


def _is_one_word(before: str, part: str) -> bool:
    """Whether a token ended in the middle of a word of letters."""
    return bool(_IN_LETTERS.search(before) and part[0].isalnum() and not _HAN.match(part))


def _clauses(words: Sequence[str]) -> list[list[str]]:
    clauses: list[list[str]] = [[]]
    for word in words:
        clauses[-1].append(word)
        if _CLAUSE_END.search(word):
            clauses.append([])
    return [clause for clause in clauses if clause]


def _cut(words: Sequence[str]) -> int:
    """Where a clause is divided: behind a contrast that begins it, else near its middle, rather before a negation."""
    if _CONTRAST.match(words[0]):
        return 1
    cuts = range(1, len(words))
    return min(cuts, key=lambda cut: abs(cut - len(words) / 2) - (1.5 if _NEGATION.match(words[cut]) else 0))
