"""What a tab shows, as tab.js reports it: a restarted server does not know.

It comes from a browser, so it is trusted no more than what a visitor may type on the page.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import BaseModel, ConfigDict, ValidationError

from qwen_aio.language import Language
from qwen_aio.ui.view import MAX_EXCHANGES, Exchange, LatestMessage, Notice, View


class TabState(BaseModel):
    """The choices of a tab, its conversation, and what is typed but not sent."""

    model_config = ConfigDict(frozen=True)

    language: Language | None = None
    mode: str = "auto"
    is_enhanced: bool = True
    draft: str = ""
    exchanges: tuple[tuple[str, str], ...] = ()
    is_running: bool = False  # a request has not ended yet

    @classmethod
    def read(cls, text: str) -> TabState:
        """The state in `text`; that of a new tab for anything else."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return cls()

    def view(self) -> View:
        """What the tab showed, but for the decision. An unanswered text becomes the draft again."""
        exchanges = tuple(Exchange(asked, answer) for asked, answer in self.exchanges[-MAX_EXCHANGES:])
        view = View(exchanges)
        if self.is_running and exchanges:
            running = View(exchanges, is_open=True, latest=LatestMessage(exchanges[-1].asked))
            view = replace(running.taken_back(Notice("interrupted")), latest=LatestMessage())
        return replace(view, draft="\n".join(filter(None, (view.draft, self.draft))) or None)
