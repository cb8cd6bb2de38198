"""Every word on the page, in English and Chinese. A missing one is a TypeError at import.

Blanks in braces are filled in where the sentence is shown.
"""

from __future__ import annotations

from collections.abc import Mapping

from qwen_aio.core import Label, Task
from qwen_aio.language import Both, Language, Strings
from qwen_aio.result import Confidence
from qwen_aio.ui.view import Notice, NoticeKey

NOTICES: Mapping[NoticeKey, str] = {
    "stopped": "Stopped. The answer so far stays.",
    "interrupted": "The answer was interrupted. Its beginning stays; an unanswered message is back in the box.",
    "busy": "The last message is still being answered. Wait for it, or press Stop.",
    "too_long": "The message has {length} characters; at most {limit} fit here. Please shorten it.",
    "nothing_visible": "The message has no visible character. Please write at least one.",
    "turns_dropped": "The conversation exceeds the model's context: the oldest exchanges ({count}) were left out.",
    "truncated": "The message is too long for the model: only its beginning and its end were read.",
    "length": "The answer reached its length limit and was cut off.",
    "extracted": "The summary quotes your text word for word.",
    "file_stopped": "Stopped. What follows is of the first rows: {count}.",
    "file_refused": "The file cannot be used like this: {message}.",
    "invalid_request": "This message was refused: {message}.",
    "context_too_small": "The message leaves no room for an answer: {message}.",
    "unknown_task": "The chosen task no longer exists. Reload the page to see the current tasks.",
    "body_too_large": "The message is too large. Please shorten it.",
    "not_ready": "The model is still loading. Please try again in a few seconds.",
    "draining": "The program is shutting down and takes no more messages.",
    "rate_limit_exceeded": "You have asked for as much as is allowed in a minute. Please go on a little later.",
    "queue_full": "Many people are asking at once. Please try again in a moment.",
    "too_many_connections": "Many people are asking at once. Please try again in a moment.",
    "deadline_exceeded": "It took too long and was cancelled. A shorter message may help.",
    "engine_stopped": "The model has stopped. Please restart the program.",
    "no_worker": "No worker is available at the moment. Please try again in a few seconds.",
    "poison_request": "This message crashed two workers and is not sent to a third. Please rephrase it.",
    "answer_broken": "The worker was lost in the middle of the answer, and no other could continue it.",
    "host_refused": "The server at {url} does not accept that name: {message}.",
    "invalid_api_key": "The server at {url} does not accept this page's key: see docs/security.md.",
    "server_unreachable": "No server answers at {url}. Is it running (to check: curl {url}/health)?",
    "connection_lost": "The connection to {url} was lost before the end. Please try again.",
    "bad_reply": "The server at {url} is not one of this program. Is the address right?",
    "internal": "Something went wrong inside the program; its log has the details. Please try again.",
}
NOTICES_IN_CHINESE: Mapping[NoticeKey, str] = {
    "stopped": "已停止，已生成的内容会保留。",
    "interrupted": "回复中断了，收到的部分会保留；尚未得到回复的消息已放回输入框。",
    "busy": "上一条消息仍在回复中，请稍候，或点击“停止”。",
    "too_long": "消息有 {length} 个字符，最多 {limit} 个，请缩短后再发。",
    "nothing_visible": "消息中没有可见字符，请至少输入一个。",
    "turns_dropped": "对话超出模型的上下文长度，最早的 {count} 轮已略去。",
    "truncated": "消息过长，模型只读取了开头和结尾。",
    "length": "回复达到长度上限，已被截断。",
    "extracted": "摘要逐字摘自原文。",
    "file_stopped": "已停止，以下是前 {count} 行的结果。",
    "file_refused": "无法处理该文件：{message}。",
    "invalid_request": "这条消息无法处理：{message}。",
    "context_too_small": "消息过长，没有为回复留下空间：{message}。",
    "unknown_task": "所选任务已不存在，请刷新页面查看现有任务。",
    "body_too_large": "消息过大，请缩短后再发。",
    "not_ready": "模型正在加载，请几秒后重试。",
    "draining": "服务正在关闭，不再接收新消息。",
    "rate_limit_exceeded": "您一分钟内的用量已达上限，请稍后再继续。",
    "queue_full": "当前请求过多，请稍后重试。",
    "too_many_connections": "当前请求过多，请稍后重试。",
    "deadline_exceeded": "处理超时，已取消。缩短消息或许有帮助。",
    "engine_stopped": "模型已停止运行，请重新启动程序。",
    "no_worker": "当前没有可用的实例，请几秒后重试。",
    "poison_request": "这条消息已使两个实例崩溃，不会再交给第三个。请换一种说法。",
    "answer_broken": "回复中途实例断开，没有其他实例能接着生成。",
    "host_refused": "{url} 的服务器不接受该名称：{message}。",
    "invalid_api_key": "{url} 的服务器不接受此页面的密钥，见 docs/security.zh-CN.md。",
    "server_unreachable": "{url} 没有服务器应答。它在运行吗（检查：curl {url}/health）？",
    "connection_lost": "与 {url} 的连接中断，请重试。",
    "bad_reply": "{url} 有响应，但不是本程序的服务器。地址正确吗？",
    "internal": "程序内部出错，详情见日志。请重试。",
}
REFUSALS = {
    "origin_refused": "Refused: the server was asked under another name than the one in your browser's address. "
    "A reverse proxy changed it; set in nginx: proxy_set_header Host $http_host; and start the server with "
    "--allowed-hosts and that name. See docs/reverse-proxy.md.",
    "invalid_api_key": "You are no longer signed in. Reload the page and sign in again.",
    "body_too_large": NOTICES["body_too_large"],
}
REFUSALS_IN_CHINESE = {
    "origin_refused": "已被拒绝：服务器收到的名称与浏览器地址栏中的不同，反向代理改写了它。"
    "请在 nginx 中设置 proxy_set_header Host $http_host; 并在启动服务器时用 --allowed-hosts 加上该名称，"
    "见 docs/reverse-proxy.zh-CN.md。",
    "invalid_api_key": "登录已失效，请刷新页面重新登录。",
    "body_too_large": NOTICES_IN_CHINESE["body_too_large"],
}


class PageStrings(Strings):
    """The words of one language."""

    tagline = Both(
        "One small model decides on the sentiment of a message, and answers it.",
        "一个小模型，判断一句话的情感，并作出回复。",
    )
    language = Both("Language", "语言")
    decision = Both("Decision", "判断")
    conversation = Both("Conversation", "对话")
    conversation_empty = Both(
        "Write something happy, something angry, or anything in between.", "说句开心的、生气的，或者随便聊聊。"
    )
    you = Both("You", "你")
    model = Both("Model", "模型")
    copy = Both("Copy", "复制")
    copied = Both("Copied", "已复制")
    message = Both("Your message", "你的消息")
    placeholder = Both("Write a message", "输入消息")
    send = Both("Send", "发送")
    stop = Both("Stop", "停止")
    new = Both("New conversation", "新对话")
    mode = Both("Task", "任务")
    auto = Both("Auto", "自动")
    enhance = Both("Decision and answer together", "同时给出判断和回复")
    examples = Both("Try one of these", "试试这些例子")
    decision_empty = Both("The decision on your message appears here.", "消息的判断会显示在这里。")
    decision_waiting = Both("Deciding…", "正在判断…")
    decision_none = Both("This request had no decision.", "这次请求没有判断。")
    abstained = Both(
        "No label is certain enough, so it counts as neutral. Most likely: {label}, {percent} %.",
        "没有足够确定的标签，因此记为中性。最可能的是{label}：{percent} %。",
    )
    all_labels = Both("All labels", "全部标签")
    confidence: Both[Mapping[Confidence, str]] = Both(
        {"高": "high confidence", "中": "medium confidence", "低": "low confidence"},
        {"高": "置信度高", "中": "置信度中", "低": "置信度低"},
    )
    route = Both("Chosen by", "选择依据")
    route_rule = Both("rule {0}", "规则 {0}")
    route_mode = Both("you: {0}", "你选择的 {0}")
    route_default = Both("no rule matched, so {0}", "没有匹配的规则，使用 {0}")
    timing_decision = Both("Decision", "判断")
    phrase_for = Both("Without it the label would have {} points less", "去掉这里，该标签的概率减少 {} 个百分点")
    phrase_against = Both("Without it the label would have {} points more", "去掉这里，该标签的概率增加 {} 个百分点")
    timing_answer = Both("Answer", "回复")
    timing_total = Both("Total", "合计")
    timing_cached = Both("Reused tokens", "复用词元")
    cached = Both("{cached} of {prompt}", "{cached} / {prompt}")
    answered_by = Both("Answered by", "处理实例")
    workers = Both("{decision} (decision), {answer} (answer)", "{decision}（判断），{answer}（回复）")
    about = Both(
        "{model} answers on worker {worker} · version {version} · no internet needed",
        "由 {model} 回复，实例 {worker} · 版本 {version} · 无需联网",
    )
    about_remote = Both(
        "{model} answers, reached through {worker} at {url} · version {version} · no internet needed",
        "由 {model} 回复，经由 {worker}（{url}）· 版本 {version} · 无需联网",
    )
    about_unknown = Both(
        "The model is not known at the moment: see {url} · version {version}",
        "暂时无法获知所用模型，请查看 {url} · 版本 {version}",
    )
    about_bundled = Both(
        "A small demonstration model: fast, often right, sometimes odd.",
        "小型演示模型：速度快，多数时候正确，偶尔答非所问。",
    )
    messages_tab = Both("Messages", "消息")
    file_tab = Both("A file of rows", "表格文件")
    file_hint = Both(
        "A CSV, TSV or JSON-lines file of at most 2,000 rows. It is read, labelled and forgotten: "
        "nothing of it stays on the server.",
        "CSV、TSV 或 JSON Lines 文件，最多 2000 行。文件只用于读取和标注，服务器上不会保留。",
    )
    file_columns = Both("Rows: {rows}, columns: {columns}", "{rows} 行，{columns} 列")
    text_column = Both("Column with the texts", "文本所在的列")
    truth_column = Both("Column with the true labels", "真实标签所在的列")
    no_truth = Both("none: only label the rows", "无：只标注")
    meanings = Both("What other values mean", "其他取值的含义")
    meanings_example = Both("5=positive 3=neutral 1=negative", "例如 5=positive 3=neutral 1=negative")
    label_rows = Both("Label the rows", "开始标注")
    rows_done = Both("{done} of {total} rows", "{done} / {total} 行")
    rows_labelled = Both("{rows} rows in {seconds:.1f} s", "{rows} 行，用时 {seconds:.1f} 秒")
    rows_left_out = Both("Not judged: {count} ({why})", "未评判：{count} 行（{why}）")
    label_shares = Both("{count} rows, {percent} % ({low} to {high} %)", "{count} 行，{percent} %（{low} 至 {high} %）")
    abstain_below = Both("Abstain below a probability of", "概率低于此值时不作判断")
    share_decided = Both("decided", "作出判断")
    share_right = Both("right of those", "其中正确")
    save_labelled = Both("Save the rows with their labels", "保存带标签的文件")
    save_report = Both("Save the report", "保存报告")
    report = Both("Report", "报告")
    sign_out = Both("Sign out", "退出登录")
    notices = Both(NOTICES, NOTICES_IN_CHINESE)
    refusals = Both(REFUSALS, REFUSALS_IN_CHINESE)  # by code of the error; operators read them too

    def notice(self, notice: Notice) -> str:
        """The sentence of `notice`."""
        return self.notices[notice.key].format_map(notice.values)

    def label(self, label: Label) -> str:
        """The name of `label` in English, its text in Chinese."""
        return label.text if self.in_chinese else label.name.replace("_", " ").capitalize()

    def title(self, task: Task) -> str:
        """The task's title, or its name if it has no title in this language."""
        return task.title.get(self.code[:2], task.name)


ENGLISH = PageStrings("en")
CHINESE = PageStrings("zh")
STRINGS: Mapping[Language, PageStrings] = {"en": ENGLISH, "zh": CHINESE}
