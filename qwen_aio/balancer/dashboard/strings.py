"""Every word on the dashboard, in English and Chinese. A missing one is a TypeError at import.

Blanks in braces are filled in by cells.py or by the script of the page.
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
    no_worker: str
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
        """`up -> suspect` in this language: the whole if it is known, else word by word."""
        return self.words.get(change) or " ".join(self.word(part) for part in change.split(" "))

    def reason_of(self, why: str) -> tuple[str, str]:
        """`why` and the code of its language: errors of others stay English."""
        return (why.said_with(self.reasons), self.code) if isinstance(why, Reason) else (why, "en")


ENGLISH = DashboardStrings(
    code="en",
    other_code="zh-CN",
    other="zh",
    other_name="中文",
    title="Balancer",
    live="live",
    stale="No update from the balancer for {seconds} s. Reconnecting; the figures are from {time}.",
    no_script="Scripts are off: the figures are from when the page was loaded, and there are no buttons.",
    state="Service",
    ready="Workers ready",
    waiting="Waiting",
    in_flight="In flight",
    requests="Requests",
    failures="Failed",
    policy="Policy",
    version="Version",
    workers="Workers",
    no_workers="No worker is known. Start one: python app.py --mode worker",
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
    uptime="Uptime",
    cost="Cost",
    terms="{queue} queue × {jitter} jitter × {failures} failures × {demotion} demotion",
    no_cost="gets no requests now",
    model="model",
    tasks="tasks",
    process="process",
    completed="completed",
    age="Report age",
    set_maint="Maintenance",
    set_drain="Drain",
    set_ready="Resume",
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
    attempts="Attempts",
    queue_time="Queue",
    total_time="Total",
    tokens="Tokens",
    outcome="Outcome",
    no_worker="none",
    events="Events",
    events_empty="Nothing has happened yet.",
    actor="By",
    change="Change",
    reason="Why",
    confirm_title="This is the last worker",
    confirm="Without {worker} no worker takes requests; new requests are refused until one resumes.",
    confirm_yes="Do it anyway",
    cancel="Cancel",
    unreachable="The balancer could not be reached; nothing has changed.",
    refused="The balancer refused: {message}",
    refused_origin="The balancer refused: it was asked under another name than the one in your browser's address. "
    "A reverse proxy changed it; set in nginx: proxy_set_header Host $http_host; and start the balancer with "
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
        "maint": "maintenance",
        "closed": "closed",
        "open": "open",
        "half_open": "half-open",
        "ok": "ok",
        "degraded": "degraded",
        "unavailable": "unavailable",
        "draining": "shutting down",
        "cancelled": "cancelled",
        "refused": "refused",
        "failed": "failed",
        "person": "administrator",
        "report": "report",
        "call": "request",
        "clock": "timer",
        "balancer": "balancer",
        "breaker": "breaker",
        "unknown": "unknown",
        "forgotten": "forgotten",
        "record stands still": "status report stalled",
        "->": "→",
    },
    reasons=SENTENCES,
)

CHINESE = DashboardStrings(
    code="zh-CN",
    other_code="en",
    other="en",
    other_name="English",
    title="负载均衡器",
    live="实时",
    stale="已有 {seconds} 秒未收到负载均衡器的更新，正在重连；当前显示的是 {time} 的数据。",
    no_script="脚本已禁用：显示的是页面打开时的数据，且没有操作按钮。",
    state="服务",
    ready="可用实例",
    waiting="队列",
    in_flight="处理中",
    requests="请求",
    failures="失败",
    policy="策略",
    version="版本",
    workers="实例",
    no_workers="尚无实例。启动一个：python app.py --mode worker",
    worker="实例",
    health="状态",
    breaker="熔断器",
    cpu="CPU",
    slots="处理中",
    inside="运行，队列",
    latency="延迟",
    last_five="最近五次",
    first_token="首个词元",
    speed="词元/秒",
    memory="内存",
    uptime="已运行",
    cost="代价",
    terms="队列 {queue} × 抖动 {jitter} × 失败 {failures} × 降级 {demotion}",
    no_cost="当前不分配请求",
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
    chart_queue="队列与各实例处理中的请求",
    chart_cpu="各实例 CPU 占用",
    log="请求日志",
    log_empty="还没有请求。",
    filter="筛选",
    filter_hint="编号、任务、实例、结果",
    find="按编号查找",
    find_hint="请求编号",
    found="{shown} / {all} 条",
    not_found="最近 {all} 条里没有这个编号的请求。",
    time="时间",
    id="编号",
    task="任务",
    why="分配原因",
    attempts="尝试",
    queue_time="排队",
    total_time="总用时",
    tokens="词元",
    outcome="结果",
    no_worker="无",
    events="事件日志",
    events_empty="还没有事件。",
    actor="来源",
    change="变化",
    reason="原因",
    confirm_title="这是最后一个可用实例",
    confirm="{worker} 停用后将没有实例接收请求，在有实例恢复之前，新请求都会被拒绝。",
    confirm_yes="仍要执行",
    cancel="取消",
    unreachable="无法连接负载均衡器，未作任何更改。",
    refused="负载均衡器已拒绝：{message}",
    refused_origin="负载均衡器已拒绝：它收到的名称与浏览器地址栏中的不同，反向代理改写了它。"
    "请在 nginx 中设置 proxy_set_header Host $http_host; 并在启动负载均衡器时用 --allowed-hosts 加上该名称，"
    "见 docs/reverse-proxy.zh-CN.md。",
    raw="相同数据（JSON）",
    words={
        "starting": "启动中",
        "up": "正常",
        "demoted": "已降级",
        "suspect": "可疑",
        "down": "宕机",
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
        "cancelled": "已取消",
        "refused": "被拒绝",
        "failed": "失败",
        "person": "管理员",
        "report": "状态报告",
        "call": "请求",
        "clock": "定时检查",
        "balancer": "负载均衡器",
        "breaker": "熔断器",
        "unknown": "未知",
        "forgotten": "已移除",
        "record stands still": "状态报告停滞",
        "->": "→",
    },
    reasons=IN_CHINESE,
)

STRINGS: Mapping[Language, DashboardStrings] = {"en": ENGLISH, "zh": CHINESE}
