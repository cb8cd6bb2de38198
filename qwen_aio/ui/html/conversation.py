"""The right panel as HTML. Pure functions; everything that is shown passes `escape`.

Not Gradio's own chatbot: even with Markdown off it reads messages as HTML, so that a model could
place an image or a link. Here a message can only be text.
"""

from __future__ import annotations

from html import escape

from qwen_aio.ui.strings import PageStrings
from qwen_aio.ui.view import View

# Runs once in the browser, with `element` the panel. Copies messages, and keeps the newest in
# sight unless the visitor scrolled away. navigator.clipboard needs https, hence execCommand.
BEHAVIOUR = """
const box = element.parentElement;
let follows = true, asked = 0, top = 0;
box.addEventListener("scroll", () => {
    // Not at the end, but not moved up either: the box has shrunk or the text has grown since.
    const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 48;
    follows = isAtEnd || (follows && box.scrollTop >= top);
    top = box.scrollTop;
});
const follow = () => { if (follows) box.scrollTop = box.scrollHeight; };
new ResizeObserver(follow).observe(box);
new MutationObserver(() => {
    const now = element.querySelectorAll(".user").length;
    follows ||= now !== asked;
    asked = now;
    follow();
}).observe(element, { childList: true, subtree: true, characterData: true });
element.addEventListener("click", async (event) => {
    const button = event.target.closest(".copy");
    if (!button) return;
    const bubble = button.parentElement.querySelector(".bubble");
    if (navigator.clipboard) {
        await navigator.clipboard.writeText(bubble.textContent);
    } else {
        getSelection().selectAllChildren(bubble);
        document.execCommand("copy");
        getSelection().removeAllRanges();
    }
    const word = button.textContent;
    button.textContent = button.dataset.copied;
    setTimeout(() => { button.textContent = word; }, 1500);
});
"""


def conversation_html(view: View, strings: PageStrings) -> str:
    """All messages, oldest first, each with a button that copies it."""
    parts = []
    for exchange in view.exchanges:
        parts.append(_message("user", strings.you, exchange.asked, strings))
        if exchange.answer:
            parts.append(_message("assistant", strings.model, exchange.answer, strings))
    if view.is_open and not view.exchanges[-1].answer:
        parts.append('<div class="assistant writing" aria-hidden="true"><i></i><i></i><i></i></div>')
    if not parts:
        parts.append(f'<p class="hint">{escape(strings.conversation_empty)}</p>')
    return f'<div class="messages" role="log" aria-label="{escape(strings.conversation)}">{"".join(parts)}</div>'


def _message(role: str, speaker: str, text: str, strings: PageStrings) -> str:
    copied = escape(strings.copied)
    return (
        f'<div class="{role}"><span class="speaker">{escape(speaker)}</span>'
        f'<div class="bubble" dir="auto">{escape(text)}</div>'
        f'<button type="button" class="copy" data-copied="{copied}">{escape(strings.copy)}</button></div>'
    )
