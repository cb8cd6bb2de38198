"""Every word on the page, in English and Chinese. A missing one is a TypeError at import.

Words in braces are filled in by whoever shows the sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qwen_aio.core import Confidence, Label, Task
from qwen_aio.language import Language
from qwen_aio.ui.view import Notice, NoticeKey


@dataclass(frozen=True)
class PageStrings:
    """The words of one language."""

    code: str  # for the page's lang attribute
    tagline: str
    language: str
    feeling: str
    conversation: str
    conversation_empty: str
    you: str
    model: str
    copy: str
    copied: str
    message: str
    placeholder: str
    send: str
    stop: str
    new: str
    mode: str
    auto: str
    enhance: str
    examples: str
    feeling_empty: str
    feeling_waiting: str
    feeling_none: str
    abstained: str
    all_labels: str
    confidence: Mapping[Confidence, str]
    route: str
    route_rule: str
    route_mode: str
    route_default: str
    timing_decision: str
    timing_answer: str
    timing_total: str
    timing_cached: str
    cached: str
    answered_by: str
    workers: str
    about: str
    about_behind: str
    about_unknown: str
    about_bundled: str
    notices: Mapping[NoticeKey, str]
    refusals: Mapping[str, str]  # of the page itself, by the error's code; for whoever runs the server, too

    def notice(self, notice: Notice) -> str:
        """The sentence `notice` stands for."""
        return self.notices[notice.key].format_map(notice.values)

    def label(self, label: Label) -> str:
        """What a person calls `label`: its name in English, its own text in Chinese."""
        return label.text if self.code.startswith("zh") else label.name.replace("_", " ").capitalize()

    def title(self, task: Task) -> str:
        """The task's name on the page; its plain name where the task has no title in this language."""
        return task.title.get(self.code[:2], task.name)


ENGLISH = PageStrings(
    code="en",
    tagline="One small model reads the feeling of a message, and answers it.",
    language="Language",
    feeling="Feeling",
    conversation="Conversation",
    conversation_empty="Say something kind, something cross, or anything in between.",
    you="You",
    model="Model",
    copy="Copy",
    copied="Copied",
    message="Your message",
    placeholder="Write a message",
    send="Send",
    stop="Stop",
    new="New conversation",
    mode="Task",
    auto="Auto",
    enhance="Feeling and reply together",
    examples="Try one of these",
    feeling_empty="The feeling of your message will appear here.",
    feeling_waiting="Reading…",
    feeling_none="No feeling was asked for this time.",
    abstained="No label was clear enough, so it counts as neutral. Most likely: {label}, {percent} %.",
    all_labels="All labels",
    confidence={"高": "high confidence", "中": "medium confidence", "低": "low confidence"},
    route="Chosen by",
    route_rule="rule {0}",
    route_mode="you: {0}",
    route_default="no rule matched, so {0}",
    timing_decision="Feeling",
    timing_answer="Reply",
    timing_total="Together",
    timing_cached="Reused tokens",
    cached="{cached} of {prompt}",
    answered_by="Answered by",
    workers="{decision} (feeling), {answer} (reply)",
    about="{model} answers on worker {worker} · version {version} · no internet needed",
    about_behind="{model} answers, reached through {worker} at {url} · version {version} · no internet needed",
    about_unknown="Which model answers is not known at the moment: ask at {url} · version {version}",
    about_bundled="A small demonstration model: quick, often right, sometimes odd.",
    notices={
        "stopped": "Stopped. What was written so far stays.",
        "interrupted": "The reply was interrupted. What had arrived stays; a message without one is back in the box.",
        "busy": "The last message is still being answered. Wait for it, or press Stop.",
        "too_long": "The message has {length} characters; at most {limit} fit here. Please shorten it.",
        "nothing_visible": "The message shows nothing. Please write at least one visible character.",
        "turns_dropped": "The conversation outgrew the model's memory: the oldest exchanges ({count}) were left out.",
        "truncated": "The message was too long for the model: only its beginning and its end were read.",
        "length": "The reply reached its length limit and was cut off.",
        "invalid_request": "This message could not be taken: {message}.",
        "context_too_small": "The message leaves no room for a reply: {message}.",
        "unknown_task": "The chosen task no longer exists. Reload the page to see the tasks there are.",
        "body_too_large": "The message is too large. Please shorten it.",
        "not_ready": "The model is still loading. Please try again in a few seconds.",
        "draining": "The program is shutting down and takes no more messages.",
        "queue_full": "Many people are asking at once. Please try again in a moment.",
        "too_many_connections": "Many people are asking at once. Please try again in a moment.",
        "deadline_exceeded": "It took too long and was given up. A shorter message may help.",
        "engine_stopped": "The model has stopped. Please restart the program.",
        "no_worker": "No worker is there to answer at the moment. Please try again in a few seconds.",
        "poison_request": "This message ended two workers and is not given to a third. Please word it differently.",
        "answer_broken": "The worker was lost in the middle of the reply, and no other could go on with it.",
        "host_refused": "The server at {url} takes no messages under that name: {message}.",
        "server_unreachable": "No server answers at {url}. Does one run there (to check: curl {url}/health)?",
        "connection_lost": "The connection to {url} broke before everything was there. Please try again.",
        "bad_reply": "Something answers at {url}, but not as this program expects. Is that the right address?",
        "internal": "Something went wrong inside the program; its log has the details. Please try again.",
    },
    refusals={
        "host_refused": "This server does not answer to the name in your browser's address. Start it with "
        "--allowed-hosts and that name; behind a reverse proxy see docs/reverse-proxy.md.",
        "origin_refused": "Refused: the server was asked under another name than the one in your browser's address. "
        "A reverse proxy has changed it; set in nginx: proxy_set_header Host $http_host; and start the server with "
        "--allowed-hosts and that name. See docs/reverse-proxy.md.",
        "body_too_large": "The message is too large. Please shorten it.",
    },
)

CHINESE = PageStrings(
    code="zh-CN",
    tagline="一个小模型，读懂一句话的情绪，再好好回应。",
    language="语言",
    feeling="情绪",
    conversation="对话",
    conversation_empty="说句高兴的、生气的，或者随便聊聊。",
    you="你",
    model="模型",
    copy="复制",
    copied="已复制",
    message="你的消息",
    placeholder="写点什么吧",
    send="发送",
    stop="停止",
    new="新对话",
    mode="任务",
    auto="自动",
    enhance="对话增强：判断与回复一起给出",
    examples="试试这些",
    feeling_empty="你这句话的情绪会显示在这里。",
    feeling_waiting="正在读…",
    feeling_none="这一次没有要求判断情绪。",
    abstained="没有哪个标签足够明确，所以记为中性。最可能的是{label}：{percent} %。",
    all_labels="全部标签",
    confidence={"高": "置信度高", "中": "置信度中", "低": "置信度低"},
    route="选择依据",
    route_rule="规则 {0}",
    route_mode="你选择的 {0}",
    route_default="没有规则匹配，用 {0}",
    timing_decision="判断",
    timing_answer="回复",
    timing_total="合计",
    timing_cached="复用词元",
    cached="{cached} / {prompt}",
    answered_by="回答者",
    workers="{decision}（判断），{answer}（回复）",
    about="由 {model} 回答，工作进程 {worker} · 版本 {version} · 无需联网",
    about_behind="由 {model} 回答，经 {worker}（{url}）· 版本 {version} · 无需联网",
    about_unknown="目前不知道由哪个模型回答，请查看 {url} · 版本 {version}",
    about_bundled="小型演示模型：很快，常常是对的，偶尔会说得奇怪。",
    notices={
        "stopped": "已停止，写出来的部分会保留。",
        "interrupted": "回复中断了，已收到的部分会保留；还没有回复的消息已放回输入框。",
        "busy": "上一条消息还在回答中，请稍等，或按“停止”。",
        "too_long": "消息有 {length} 个字符，这里最多 {limit} 个，请缩短一些。",
        "nothing_visible": "消息里没有可见的字符，请至少写一个。",
        "turns_dropped": "对话超出了模型的记忆，最早的 {count} 轮没有带上。",
        "truncated": "消息太长，模型只读了开头和结尾。",
        "length": "回复到了长度上限，后面被截断了。",
        "invalid_request": "这条消息无法处理：{message}。",
        "context_too_small": "消息没有给回复留下空间：{message}。",
        "unknown_task": "所选的任务已经不存在，请刷新页面查看现有任务。",
        "body_too_large": "消息太大了，请缩短一些。",
        "not_ready": "模型还在加载，请过几秒再试。",
        "draining": "程序正在关闭，不再接收新消息。",
        "queue_full": "现在提问的人太多，请稍后再试。",
        "too_many_connections": "现在提问的人太多，请稍后再试。",
        "deadline_exceeded": "用时太久，已经放弃。消息短一些也许会好。",
        "engine_stopped": "模型已经停止，请重新启动程序。",
        "no_worker": "现在没有可用的工作进程，请过几秒再试。",
        "poison_request": "这条消息让两个工作进程中止了，不会再交给第三个。请换一种说法。",
        "answer_broken": "回复到一半时工作进程断开了，没有别的能接着写完。",
        "host_refused": "{url} 的服务器不接受这个名称：{message}。",
        "server_unreachable": "{url} 没有服务器应答。它在运行吗（检查：curl {url}/health）？",
        "connection_lost": "与 {url} 的连接中途断了，请再试一次。",
        "bad_reply": "{url} 有应答，但不是本程序的服务器。地址对吗？",
        "internal": "程序内部出了错，详情在日志里。请再试一次。",
    },
    refusals={
        "host_refused": "服务器不接受浏览器地址栏中的名称。启动时请用 --allowed-hosts 加上这个名称；"
        "在反向代理之后请看 docs/reverse-proxy.zh-CN.md。",
        "origin_refused": "已被拒绝：服务器收到的名称与浏览器地址栏中的不同，是反向代理改掉的。"
        "请在 nginx 中设置 proxy_set_header Host $http_host; 并在启动服务器时用 --allowed-hosts 加上这个名称，"
        "见 docs/reverse-proxy.zh-CN.md。",
        "body_too_large": "消息太大了，请缩短一些。",
    },
)

STRINGS: Mapping[Language, PageStrings] = {"en": ENGLISH, "zh": CHINESE}
