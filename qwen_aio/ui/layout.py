"""The components of the page and their places. Knows no events; those are in page.py."""

from __future__ import annotations

import os
from collections.abc import Mapping

# Before gradio is imported: it would ask the internet for new versions, and run pandas over its
# statistics at every event.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = "1000000000"

import gradio as gr

from qwen_aio.core import Task
from qwen_aio.ui.about import About
from qwen_aio.ui.html.conversation import BEHAVIOUR, conversation_html
from qwen_aio.ui.html.decision import decision_html
from qwen_aio.ui.html.file import OUTCOME_BEHAVIOUR, PICKER, PICKER_BEHAVIOUR, hint_html
from qwen_aio.ui.html.frame import about_html, header_html, notices_html, title_html
from qwen_aio.ui.session import Session
from qwen_aio.ui.strings import PageStrings
from qwen_aio.ui.view import LatestMessage, View

MAX_MEANINGS_CHARS = 1000
MAX_BOX_CHARS = 100_000  # sent as text and as draft; a request holds both
EXAMPLES = (
    "快递太慢了,差评!",
    "客服态度超好,必须点赞!",
    "这破手机,充一次电只能用3小时,气死我了!",
    "刚收到货,包装完好,但颜色和图片不太一样,有点小失望",
    "The battery died after two days and nobody answers my emails.",
    "Lovely little hotel, friendly staff, we will be back!",
)


class Layout:
    """Every component, placed in the current `gr.Blocks`; the language is set at the opening."""

    def __init__(self, words: PageStrings, about: About) -> None:
        self.session = gr.State(Session())  # copied for every tab
        self.tab = gr.Textbox(visible=False)  # filled in the browser, see tab.js
        self._place_top(words)
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab(words.messages_tab) as self.messages_tab:
                self._place_messages(words)
            with gr.Tab(words.file_tab) as self.file_tab, gr.Column(elem_id="file", elem_classes="card"):
                self.file = FilePanel(words)
        self.about = _html(about_html(about, words), elem_id="about")

    @property
    def changing(self) -> list[gr.blocks.Block]:
        """The components that a request can change."""
        return [self.conversation, self.decision, self.notices, self.text, self.send, self.stop]

    @property
    def worded(self) -> list[gr.blocks.Block]:
        """All components with words, and those that a request can change."""
        texts = [
            self.messages_tab,
            self.file_tab,
            *self.file.worded,
            self.header,
            self.decision_title,
            self.conversation_title,
            self.examples_title,
            self.about,
        ]
        return [*self.changing, *texts, self.language, self.new, self.mode, self.enhance]

    def _place_top(self, words: PageStrings) -> None:
        with gr.Row(elem_id="top"):
            self.header = _html(header_html(words), elem_id="header")
            self.language = _segments([("English", "en"), ("中文", "zh")], label=words.language, elem_id="language")

    def _place_messages(self, words: PageStrings) -> None:
        with gr.Row(elem_id="panels"):
            self._place_decision(words)
            self._place_conversation(words)
        with gr.Column(elem_id="composer", elem_classes="card"):
            self._place_composer(words)
        with gr.Row(elem_id="examples"):
            self.examples_title = _html(title_html(words.examples), elem_id="examples-title")
            self.examples = [gr.Button(example, size="sm", elem_classes="example") for example in EXAMPLES]

    def _place_decision(self, words: PageStrings) -> None:
        with gr.Column(elem_id="left", elem_classes="card"):
            self.decision_title = _html(title_html(words.decision))
            self.decision = _html(decision_html(LatestMessage(), words, tasks={}, is_running=False), elem_id="decision")

    def _place_conversation(self, words: PageStrings) -> None:
        with gr.Column(elem_id="right", elem_classes="card"):
            with gr.Row(elem_id="right-top"):
                self.conversation_title = _html(title_html(words.conversation))
                self.new = gr.Button(words.new, size="sm", elem_id="new")
            self.conversation = _html(conversation_html(View(), words), elem_id="conversation", js_on_load=BEHAVIOUR)

    def _place_composer(self, words: PageStrings) -> None:
        self.notices = _html(notices_html((), words), elem_id="notices")
        with gr.Row(elem_id="choices"):
            self.mode = _segments(modes({}, words), label=words.mode, elem_id="mode")
            self.enhance = gr.Checkbox(value=True, label=words.enhance, elem_id="enhance", interactive=True)
        with gr.Row(elem_id="entry"):
            self.text = gr.Textbox(
                label=words.message,
                placeholder=words.placeholder,
                lines=1,
                max_lines=6,
                max_length=MAX_BOX_CHARS,
                elem_id="text",
            )
            self.send = gr.Button(words.send, variant="primary", elem_id="send")
            self.stop = gr.Button(words.stop, elem_id="stop", visible=False)


class FilePanel:
    """The second tab: a file of rows, its columns, the choices, and what came of it."""

    def __init__(self, words: PageStrings) -> None:
        self.hint = _html(hint_html(words), elem_id="file-hint")
        self.picker = _html(PICKER, elem_id="picker", js_on_load=PICKER_BEHAVIOUR)
        self.sent = gr.Textbox(visible=False)  # filled in the browser, as Layout.tab
        self.notices = _html(notices_html((), words), elem_id="file-notices")
        with gr.Row(elem_id="file-choices"):
            self.task = gr.Dropdown([], label=words.mode, elem_id="file-task", interactive=True)
            self.text_column = gr.Dropdown([], label=words.text_column, elem_id="text-column", interactive=True)
            self.truth_column = gr.Dropdown([], label=words.truth_column, elem_id="truth-column", interactive=True)
            self.meanings = gr.Textbox(
                label=words.meanings,
                placeholder=words.meanings_example,
                max_length=MAX_MEANINGS_CHARS,
                elem_id="meanings",
            )
        with gr.Row(elem_id="file-acts"):
            self.run = gr.Button(words.label_rows, variant="primary", elem_id="label-rows", interactive=False)
            self.stop = gr.Button(words.stop, elem_id="stop-rows", visible=False)
            self.progress = _html("", elem_id="file-progress")
        self.outcome = _html("", elem_id="outcome", js_on_load=OUTCOME_BEHAVIOUR)

    @property
    def changing(self) -> list[gr.blocks.Block]:
        """The components that a file can change."""
        return [self.notices, self.text_column, self.truth_column, self.run, self.stop, self.progress, self.outcome]

    @property
    def worded(self) -> list[gr.blocks.Block]:
        """All components with words, but for what came of a file: that stays in the language it was asked in."""
        return [self.hint, self.task, self.text_column, self.truth_column, self.meanings, self.run, self.stop]


def decision_tasks(tasks: Mapping[str, Task], words: PageStrings) -> list[tuple[str, str]]:
    """(title, name) of the tasks that label rows."""
    return [choice for choice in modes(tasks, words) if choice[1] in tasks and tasks[choice[1]].kind == "decision"]


def truth_columns(session: Session, words: PageStrings) -> list[tuple[str, str]]:
    """(title, value) of the columns that may hold true labels; "" stands for none."""
    return [(words.no_truth, ""), *((name, name) for name in session.columns)]


def modes(tasks: Mapping[str, Task], words: PageStrings) -> list[tuple[str, str]]:
    """(title, value) of the mode switch: auto, decision tasks, generation tasks.

    A task without any title is not offered.
    """
    ordered = sorted((task for task in tasks.values() if task.title), key=lambda task: (task.kind, task.name))
    return [(words.auto, "auto"), *((words.title(task), task.name) for task in ordered)]


def _html(value: str, *, elem_id: str | None = None, js_on_load: str | None = None) -> gr.HTML:
    return gr.HTML(value, elem_id=elem_id, js_on_load=js_on_load, apply_default_css=False)


def _segments(choices: list[tuple[str, str]], *, label: str, elem_id: str) -> gr.Radio:
    """A radio that looks like one bar cut in segments; the first choice is chosen."""
    return gr.Radio(
        choices, value=choices[0][1], label=label, elem_id=elem_id, elem_classes="segments", interactive=True
    )
