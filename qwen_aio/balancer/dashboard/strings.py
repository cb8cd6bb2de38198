"""Every word on the dashboard, in English and Chinese. A missing one is a TypeError at import.

Words in braces are filled in by whoever shows the sentence, be it cells.py or the script of the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qwen_aio.balancer.dashboard.reasons import IN_CHINESE
from qwen_aio.balancer.reasons import SENTENCES, Reason
from qwen_aio.language import Language


@dataclass(frozen=True)
class DashboardStrings:
    """The words of one language."""

    code: str  # for the page's lang attribute
    other_code: str
    other: Language
    other_name: str
    title: str
    live: str
    stale: str
    no_script: str
    state: str
    ready: str
    waiting: str
    in_flight: str
    requests: str
    failures: str
    policy: str
    version: str
    workers: str
    no_workers: str
    worker: str
    health: str
    breaker: str
    cpu: str
    slots: str
    inside: str
    latency: str
    last_five: str
    first_token: str
    speed: str
    memory: str
    uptime: str
    cost: str
    terms: str
    no_cost: str
    model: str
    tasks: str
    process: str
    completed: str
    age: str
    set_maint: str
    set_drain: str
    set_ready: str
    charts: str
    chart_rate: str
    chart_latency: str
    chart_queue: str
    chart_cpu: str
    log: str
    log_empty: str
    filter: str
    filter_hint: str
    find: str
    find_hint: str
    found: str
    not_found: str
    time: str
    id: str
    task: str
    why: str
    attempts: str
    queue_time: str
    total_time: str
    tokens: str
    outcome: str
    nobody: str
    events: str
    events_empty: str
    actor: str
    change: str
    reason: str
    confirm_title: str
    confirm: str
    confirm_yes: str
    cancel: str
    unreachable: str
    refused: str
    refused_origin: str
    raw: str
    words: Mapping[str, str]  # states, outcomes and actors as the balancer calls them
    reasons: Mapping[str, str]  # sentences by the codes of the balancer's reasons

    def word(self, name: str) -> str:
        """`name` in this language; itself if there is no word for it."""
        return self.words.get(name, name)

    def change_of(self, change: str) -> str:
        """`up -> suspect` in this language, word by word unless there is one for the whole."""
        return self.words.get(change) or " ".join(self.word(part) for part in change.split(" "))

    def reason_of(self, why: str) -> tuple[str, str]:
        """`why` in this language, and the code of its language: what the balancer only passes on is English."""
        return (why.said_with(self.reasons), self.code) if isinstance(why, Reason) else (why, "en")


ENGLISH = DashboardStrings(
    code="en",
    other_code="zh-CN",
    other="zh",
    other_name="中文",
    title="Balancer",
    live="live",
    stale="No news from the balancer for {seconds} s. Trying again; what you see is of {time}.",
    no_script="Scripts are off: these figures are of the moment the page was loaded, and the buttons are not there.",
    state="Service",
    ready="Workers ready",
    waiting="Waiting",
    in_flight="In flight",
    requests="Requests",
    failures="Failed",
    policy="Policy",
    version="Version",
    workers="Workers",
    no_workers="No worker has been heard of. Start one: python app.py --mode worker",
    worker="Worker",
    health="State",
    breaker="Breaker",
    cpu="CPU",
    slots="In flight",
    inside="Run, queue",
    latency="Latency",
    last_five="last five",
    first_token="First token",
    speed="Tokens/s",
    memory="Memory",
    uptime="Up for",
    cost="Cost",
    terms="{queue} queue × {jitter} jitter × {failures} failures × {demotion} demotion",
    no_cost="gets no work now",
    model="model",
    tasks="tasks",
    process="process",
    completed="completed",
    age="Report age",
    set_maint="Take offline",
    set_drain="Drain",
    set_ready="Bring back",
    charts="The last 15 minutes",
    chart_rate="Requests per second",
    chart_latency="Latency",
    chart_queue="Waiting, and in flight per worker",
    chart_cpu="CPU per worker",
    log="Requests",
    log_empty="No request yet.",
    filter="Filter",
    filter_hint="id, task, worker, outcome",
    find="Find by id",
    find_hint="request id",
    found="{shown} of {all}",
    not_found="No request with this id among the last {all}.",
    time="Time",
    id="Id",
    task="Task",
    why="Why this worker",
    attempts="Tries",
    queue_time="Queue",
    total_time="Total",
    tokens="Tokens",
    outcome="Outcome",
    nobody="nobody",
    events="Events",
    events_empty="Nothing has happened yet.",
    actor="By",
    change="Change",
    reason="Why",
    confirm_title="Nobody would be left",
    confirm="Without {worker} no worker takes requests, and new ones are refused until one comes back.",
    confirm_yes="Do it anyway",
    cancel="Cancel",
    unreachable="The balancer could not be reached; nothing was changed.",
    refused="The balancer refused: {message}",
    refused_origin="The balancer refused: it was asked under another name than the one in your browser's address. "
    "A reverse proxy has changed it; set in nginx: proxy_set_header Host $http_host; and start the balancer with "
    "--allowed-hosts and that name. See docs/reverse-proxy.md.",
    raw="The same as JSON",
    words={
        "starting": "starting",
        "up": "up",
        "demoted": "demoted",
        "suspect": "suspect",
        "down": "down",
        "ready": "ready",
        "drain": "draining",
        "maint": "offline",
        "closed": "closed",
        "open": "open",
        "half_open": "half-open",
        "ok": "ok",
        "degraded": "degraded",
        "unavailable": "unavailable",
        "draining": "shutting down",
        "cancelled": "given up",
        "refused": "refused",
        "failed": "failed",
        "person": "person",
        "report": "report",
        "call": "call",
        "clock": "clock",
        "balancer": "balancer",
        "breaker": "breaker",
        "unknown": "unknown",
        "forgotten": "forgotten",
        "record stands still": "its report stands still",
        "->": "→",
    },
    reasons=SENTENCES,
)

CHINESE = DashboardStrings(
    code="zh-CN",
    other_code="en",
    other="en",
    other_name="English",
    title="负载均衡",
    live="实时",
    stale="已有 {seconds} 秒没有收到均衡器的消息，正在重试；现在看到的是 {time} 的情况。",
    no_script="脚本已关闭：这里是页面打开时的数字，也没有操作按钮。",
    state="服务",
    ready="可用工作进程",
    waiting="排队",
    in_flight="处理中",
    requests="请求",
    failures="失败",
    policy="策略",
    version="版本",
    workers="工作进程",
    no_workers="还没有工作进程。启动一个：python app.py --mode worker",
    worker="工作进程",
    health="状态",
    breaker="熔断器",
    cpu="处理器",
    slots="处理中",
    inside="运行，排队",
    latency="延迟",
    last_five="最近五次",
    first_token="首个词元",
    speed="词元/秒",
    memory="内存",
    uptime="已运行",
    cost="代价",
    terms="队列 {queue} × 抖动 {jitter} × 失败 {failures} × 降级 {demotion}",
    no_cost="目前不分配请求",
    model="模型",
    tasks="任务",
    process="进程",
    completed="已完成",
    age="距上次报告",
    set_maint="下线",
    set_drain="排空",
    set_ready="恢复",
    charts="最近 15 分钟",
    chart_rate="每秒请求数",
    chart_latency="延迟",
    chart_queue="排队，及各进程处理中",
    chart_cpu="各进程处理器占用",
    log="请求日志",
    log_empty="还没有请求。",
    filter="筛选",
    filter_hint="编号、任务、工作进程、结果",
    find="按编号查找",
    find_hint="请求编号",
    found="{shown} / {all} 条",
    not_found="最近 {all} 条里没有这个编号的请求。",
    time="时间",
    id="编号",
    task="任务",
    why="为何选它",
    attempts="尝试",
    queue_time="排队",
    total_time="总计",
    tokens="词元",
    outcome="结果",
    nobody="无",
    events="事件日志",
    events_empty="还没有事件。",
    actor="来源",
    change="变化",
    reason="原因",
    confirm_title="将没有可用的工作进程",
    confirm="没有 {worker}，就没有工作进程能接收请求，恢复之前新请求都会被拒绝。",
    confirm_yes="仍然执行",
    cancel="取消",
    unreachable="连不上均衡器，什么都没有改变。",
    refused="均衡器拒绝了：{message}",
    refused_origin="均衡器拒绝了：它收到的名称与浏览器地址栏中的不同，是反向代理改掉的。"
    "请在 nginx 中设置 proxy_set_header Host $http_host; 并在启动均衡器时用 --allowed-hosts 加上这个名称，"
    "见 docs/reverse-proxy.zh-CN.md。",
    raw="同样的数据（JSON）",
    words={
        "starting": "启动中",
        "up": "正常",
        "demoted": "已降级",
        "suspect": "可疑",
        "down": "失联",
        "ready": "就绪",
        "drain": "排空中",
        "maint": "已下线",
        "closed": "闭合",
        "open": "断开",
        "half_open": "半开",
        "ok": "正常",
        "degraded": "部分可用",
        "unavailable": "不可用",
        "draining": "正在关闭",
        "cancelled": "已放弃",
        "refused": "被拒绝",
        "failed": "失败",
        "person": "人工",
        "report": "状态报告",
        "call": "请求",
        "clock": "计时",
        "balancer": "均衡器",
        "breaker": "熔断器",
        "unknown": "未知",
        "forgotten": "已移除",
        "record stands still": "状态报告停滞",
        "->": "→",
    },
    reasons=IN_CHINESE,
)

STRINGS: Mapping[Language, DashboardStrings] = {"en": ENGLISH, "zh": CHINESE}
