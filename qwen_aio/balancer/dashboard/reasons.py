"""The balancer's own sentences about why something is as it is, in Chinese.

They are made in English where they are meant (health.py, worker.py, registry.py, event_log.py, policies.py,
placement.py). A number in them is written # here. What is not here, such as the words of an operating system, stays as
it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

_HEALTH = {
    "its engine has failed": "引擎已经失效",
    "it is shutting down": "正在关闭",
    "nothing was heard of it for # s": "已有 # 秒没有任何消息",
    "nothing was heard of it yet": "还没有任何消息",
    "its record may be old: it has not moved yet": "状态报告可能是旧的：还没有更新过",
    "another process listens at its address now": "它的地址现在属于另一个进程",
    "it is loading its model": "正在加载模型",
    "a call on it got nothing for too long": "交给它的请求太久没有回音",
    "its status reports arrive on time": "状态报告按时到达",
    "its record stands still for # s": "状态报告已停滞 # 秒",
    "its record stands still for # s, but tokens come from it": "状态报告已停滞 # 秒，但仍在送出词元",
    "it has not said yet what it can do": "还没有说明自己能做什么",
    "slow: # ms on average, report after report": "变慢：平均 # 毫秒，接连几次报告都是如此",
    "slow: # ms on average, report after report; but at most half of the workers are demoted, the slowest": (
        "变慢：平均 # 毫秒，接连几次报告都是如此；但最多降级一半，只降最慢的"
    ),
}
_PEOPLE = {
    "brought back": "已恢复",
    "gets no new work, what runs may end": "不再接收新请求，正在处理的可以做完",
    "taken offline": "已下线",
    "as it was before": "与之前相同",
}
_BREAKER = {
    "one call may try whether it works again": "放行一个请求，看它是否恢复",
    "it works again": "已恢复正常",
}
_CHOICES = {
    "only free worker": "唯一空闲的实例",
    "least loaded: # in flight": "负载最少：# 个正在处理",
    "linear #: queue #, latency #, jitter #": "线性得分 #：队列 #，延迟 #，抖动 #",
    "round robin": "轮询",
    "random": "随机",
    "probe of a half-open breaker": "试探半开的熔断器",
    "probe of a demoted worker": "试探已降级的实例",
    "probe of an idle worker": "试探久未使用的实例",
}
_FACTORS = {"jitter": "抖动", "failures": "失败", "demotion": "降级"}


def _costs() -> Iterator[tuple[str, str]]:
    """Why a worker got a request: the cost and those of its terms that changed anything."""
    for are_told in product((False, True), repeat=len(_FACTORS)):
        told = [(name, word) for (name, word), is_told in zip(_FACTORS.items(), are_told, strict=True) if is_told]
        english = "".join(f", {name} x#" for name, _ in told)
        yield f"cost #: queue # s{english}", "代价 #：队列 # 秒" + "".join(f"，{word} ×#" for _, word in told)


IN_CHINESE: Mapping[str, str] = {**_HEALTH, **_PEOPLE, **_BREAKER, **_CHOICES, **dict(_costs())}
