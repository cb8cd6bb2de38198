"""Every word on the dashboard, in English and Chinese. A missing one is a TypeError at import.

Blanks in braces are filled in by cells.py or by the script of the page.
"""

from __future__ import annotations

from collections.abc import Mapping

from qwen_aio.balancer.reasons import Reason
from qwen_aio.language import Both, Language, Strings

# States, outcomes and actors as the balancer calls them.
WORDS = {
    "starting": ("starting", "启动中"),
    "up": ("up", "正常"),
    "demoted": ("demoted", "已降级"),
    "suspect": ("suspect", "可疑"),
    "down": ("down", "宕机"),
    "ready": ("ready", "就绪"),
    "drain": ("draining", "排空中"),
    "maint": ("maintenance", "已下线"),
    "closed": ("closed", "闭合"),
    "open": ("open", "断开"),
    "half_open": ("half-open", "半开"),
    "ok": ("ok", "正常"),
    "degraded": ("degraded", "部分可用"),
    "unavailable": ("unavailable", "不可用"),
    "draining": ("shutting down", "正在关闭"),
    "cancelled": ("cancelled", "已取消"),
    "refused": ("refused", "被拒绝"),
    "failed": ("failed", "失败"),
    "person": ("operator", "运维人员"),
    "report": ("report", "状态报告"),
    "call": ("request", "请求"),
    "clock": ("timer", "定时检查"),
    "balancer": ("balancer", "负载均衡器"),
    "breaker": ("breaker", "熔断器"),
    "unknown": ("unknown", "未知"),
    "forgotten": ("forgotten", "已移除"),
    "record stands still": ("status report stalled", "状态报告停滞"),
    "->": ("→", "→"),
}


class DashboardStrings(Strings):
    """The words of one language."""

    other_code = Both("zh-CN", "en")
    other = Both[Language]("zh", "en")
    other_name = Both("中文", "English")
    title = Both("Balancer", "负载均衡器")
    signed_in = Both("Signed in", "已登录")
    live = Both("live", "实时")
    stale = Both(
        "No update from the balancer for {seconds} s. Reconnecting; the figures are from {time}.",
        "已有 {seconds} 秒未收到负载均衡器的更新，正在重连；当前显示的是 {time} 的数据。",
    )
    no_script = Both(
        "Scripts are off: the figures are from when the page was loaded, and there are no buttons.",
        "脚本已禁用：显示的是页面打开时的数据，且没有操作按钮。",
    )
    state = Both("Service", "服务")
    ready = Both("Workers ready", "可用实例")
    waiting = Both("Waiting", "队列")
    in_flight = Both("In flight", "处理中")
    requests = Both("Requests", "请求")
    failures = Both("Failed", "失败")
    egress = Both("Refused egress", "已拒绝外连")
    not_offline = Both("not counted", "未统计")
    policy = Both("Policy", "策略")
    version = Both("Version", "版本")
    workers = Both("Workers", "实例")
    no_workers = Both(
        "No worker is known. Start one: python app.py --mode worker", "尚无实例。启动一个：python app.py --mode worker"
    )
    worker = Both("Worker", "实例")
    health = Both("State", "状态")
    breaker = Both("Breaker", "熔断器")
    cpu = Both("CPU", "CPU")
    inside = Both("Run, queue", "运行，队列")
    latency = Both("Latency", "延迟")
    last_five = Both("last five", "最近五次")
    first_token = Both("First token", "首个词元")
    speed = Both("Tokens/s", "词元/秒")
    memory = Both("Memory", "内存")
    uptime = Both("Uptime", "已运行")
    cost = Both("Cost", "代价")
    terms = Both(
        "{queue} queue × {jitter} jitter × {failures} failures × {demotion} demotion",
        "队列 {queue} × 抖动 {jitter} × 失败 {failures} × 降级 {demotion}",
    )
    no_cost = Both("gets no requests now", "当前不分配请求")
    model = Both("model", "模型")
    tasks = Both("tasks", "任务")
    process = Both("process", "进程")
    completed = Both("completed", "已完成")
    age = Both("Report age", "距上次报告")
    set_maint = Both("Maintenance", "下线")
    set_drain = Both("Drain", "排空")
    set_ready = Both("Resume", "恢复")
    charts = Both("The last 15 minutes", "最近 15 分钟")
    chart_rate = Both("Requests per second", "每秒请求数")
    chart_queue = Both("Waiting, and in flight per worker", "队列与各实例处理中的请求")
    chart_cpu = Both("CPU per worker", "各实例 CPU 占用")
    log = Both("Requests", "请求日志")
    log_empty = Both("No request yet.", "还没有请求。")
    filter = Both("Filter", "筛选")
    filter_hint = Both("id, task, worker, outcome", "编号、任务、实例、结果")
    find = Both("Find by id", "按编号查找")
    find_hint = Both("request id", "请求编号")
    found = Both("{shown} of {all}", "{shown} / {all} 条")
    not_found = Both("No request with this id among the last {all}.", "最近 {all} 条里没有这个编号的请求。")
    time = Both("Time", "时间")
    id = Both("Id", "编号")
    task = Both("Task", "任务")
    why = Both("Why this worker", "分配原因")
    attempts = Both("Attempts", "尝试")
    queue_time = Both("Queue", "排队")
    total_time = Both("Total", "总用时")
    tokens = Both("Tokens", "词元")
    outcome = Both("Outcome", "结果")
    no_worker = Both("none", "无")
    events = Both("Events", "事件日志")
    events_empty = Both("Nothing has happened yet.", "还没有事件。")
    actor = Both("By", "来源")
    change = Both("Change", "变化")
    reason = Both("Why", "原因")
    confirm_title = Both("This is the last worker", "这是最后一个可用实例")
    confirm = Both(
        "Without {worker} no worker takes requests; new requests are refused until one resumes.",
        "{worker} 停用后将没有实例接收请求，在有实例恢复之前，新请求都会被拒绝。",
    )
    confirm_yes = Both("Do it anyway", "仍要执行")
    cancel = Both("Cancel", "取消")
    unreachable = Both("The balancer could not be reached; nothing has changed.", "无法连接负载均衡器，未作任何更改。")
    refused = Both("The balancer refused: {message}", "负载均衡器已拒绝：{message}")
    refused_origin = Both(
        "The balancer refused: it was asked under another name than the one in your browser's address. "
        "A reverse proxy changed it; set in nginx: proxy_set_header Host $http_host; and start the balancer with "
        "--allowed-hosts and that name. See docs/reverse-proxy.md.",
        "负载均衡器已拒绝：它收到的名称与浏览器地址栏中的不同，反向代理改写了它。"
        "请在 nginx 中设置 proxy_set_header Host $http_host; 并在启动负载均衡器时用 --allowed-hosts 加上该名称，"
        "见 docs/reverse-proxy.zh-CN.md。",
    )
    refused_key = Both(
        "The buttons need an admin key: reload the page and sign in with one.",
        "操作按钮需要管理员密钥，请刷新页面并用它登录。",
    )
    raw = Both("The same as JSON", "相同数据（JSON）")
    words = Both(
        {name: english for name, (english, _) in WORDS.items()},
        {name: chinese for name, (_, chinese) in WORDS.items()},
    )

    def word(self, name: str) -> str:
        """`name` in this language; itself if there is no word for it."""
        return self.words.get(name, name)

    def change_of(self, change: str) -> str:
        """`up -> suspect` in this language: the whole if it is known, else word by word."""
        return self.words.get(change) or " ".join(self.word(part) for part in change.split(" "))

    def reason_of(self, why: str) -> tuple[str, str]:
        """`why` and the code of its language: errors of others stay English."""
        return (why.in_chinese(), self.code) if self.in_chinese and isinstance(why, Reason) else (why, "en")


ENGLISH = DashboardStrings("en")
CHINESE = DashboardStrings("zh")
STRINGS: Mapping[Language, DashboardStrings] = {"en": ENGLISH, "zh": CHINESE}
