"""Why something is as it is: an English sentence with values, which can be said in Chinese, too.

/status and the logs show the English one, the dashboard that of the page's language. The reasons of
a policy are in cost/policies.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from qwen_aio.language import Both

# the health of a worker
ENGINE_FAILED = Both("its engine has failed", "推理引擎已失效")
SHUTTING_DOWN = Both("it is shutting down", "正在关闭")
SILENT = Both("nothing was heard of it for {seconds:.0f} s", "已有 {seconds:.0f} 秒没有任何消息")
NEVER_HEARD = Both("nothing was heard of it yet", "尚未收到任何消息")
OLD_REPORT = Both("its status report may be old: it has not moved yet", "状态报告可能已过期：尚未更新过")
REPLACED = Both("another process listens at its address now", "该地址现由另一个进程占用")
OTHER_WORKER = Both("{worker} listens at its address now", "该地址现由 {worker} 占用")
KEY_REFUSED = Both(
    "it does not accept this balancer's key, see docs/security.md",
    "不接受负载均衡器的密钥，见 docs/security.zh-CN.md",
)
TAKES_NO_WORK = Both("it takes no work: {failure}", "不接收请求：{failure}")
LOADING = Both("it is loading its model", "正在加载模型")
STALLED = Both("a request on it got nothing for too long", "有请求长时间没有响应")
REPORTS = Both("its status reports arrive on time", "状态报告按时到达")
FROZEN = Both("its status report stands still for {seconds:.0f} s", "状态报告已停滞 {seconds:.0f} 秒")
FROZEN_BUT_SERVING = Both(
    "its status report stands still for {seconds:.0f} s, but tokens come from it",
    "状态报告已停滞 {seconds:.0f} 秒，但仍在输出词元",
)
NO_CAPABILITIES = Both("it has not said yet what it can do", "尚未报告支持的任务")
SLOW = Both(
    "slow: {milliseconds:.0f} ms on average, report after report",
    "响应变慢：平均 {milliseconds:.0f} 毫秒，连续多次报告均如此",
)
NOT_DEMOTED = Both("; but at most half of the workers are demoted, the slowest", "；但最多降级一半实例，只降最慢的")

# what an operator set
SET_READY = Both("resumed", "已恢复")
SET_DRAIN = Both("gets no new work, what runs may end", "不再接收新请求，处理中的请求会继续完成")
SET_MAINT = Both("in maintenance", "已下线")
RESTORED = Both("as it was before", "与之前相同")

# the circuit breaker
BREAKER_OPEN = Both(
    "no requests for {seconds:.0f} s, since too many failed: {failure}",
    "失败过多，暂停分配请求 {seconds:.0f} 秒：{failure}",
)
BREAKER_HALF_OPEN = Both("one request may try whether it works again", "放行一个请求，试探是否恢复")
BREAKER_CLOSED = Both("it works again", "已恢复正常")

# the placement of a request
ONLY_FREE = Both("only free worker", "唯一空闲的实例")
PROBE_HALF_OPEN = Both("probe of a half-open breaker", "试探半开的熔断器")
PROBE_DEMOTED = Both("probe of a demoted worker", "试探已降级的实例")
PROBE_IDLE = Both("probe of an idle worker", "试探久未使用的实例")


class Reason(str):
    """An English sentence that knows itself in Chinese. Other messages, such as errors, are str."""

    chinese: str  # with blanks for the values
    values: Mapping[str, object]
    more: tuple[Reason, ...]  # continue the sentence

    def __new__(cls, words: Both[str], *more: Reason, **values: object) -> Reason:
        """`words` with `values` in their blanks, continued by `more`."""
        reason = super().__new__(cls, "".join([words.english.format(**values), *more]))
        reason.chinese, reason.values, reason.more = words.chinese, values, more
        return reason

    def in_chinese(self) -> str:
        """The whole sentence, values and continuation included."""
        return self.chinese.format(**self.values) + "".join(part.in_chinese() for part in self.more)
