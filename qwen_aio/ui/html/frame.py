"""The page around the two panels, as HTML. Everything that is shown passes `escape`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from qwen_aio.ui.about import About
from qwen_aio.ui.strings import PageStrings
from qwen_aio.ui.view import Notice


def notices_html(notices: Sequence[Notice], strings: PageStrings) -> str:
    """One line for each notice; errors have a class of their own."""
    lines = (
        f'<p class="notice{" error" if notice.is_error else ""}">{escape(strings.notice(notice))}</p>'
        for notice in notices
    )
    return f'<div role="status">{"".join(lines)}</div>'


def header_html(strings: PageStrings) -> str:
    """Name and purpose of the page."""
    return f'<h1>Qwen All-in-One</h1><p class="tagline">{escape(strings.tagline)}</p>'


def percent_of(share: float) -> str:
    """A share as the page writes it, without the sign."""
    return f"{100 * share:.1f}"


def title_html(title: str) -> str:
    """Heading of a panel."""
    return f"<h2>{escape(title)}</h2>"


def about_html(about: About, strings: PageStrings) -> str:
    """The footer: which model answers, where, and a warning if it is the bundled one; where to sign out."""
    if about.model is None:
        sentence = strings.about_unknown
    else:
        sentence = strings.about if about.url is None else strings.about_remote
    line = sentence.format(model=about.model, worker=about.worker, version=about.version, url=about.url)
    remark = f'<p class="bundled">{escape(strings.about_bundled)}</p>' if about.is_bundled else ""
    leave = f'<p><a href="login">{escape(strings.sign_out)}</a></p>' if about.has_keys else ""
    return f"{remark}<p>{escape(line)}</p>{leave}"
