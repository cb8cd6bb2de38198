"""The balancer's reasons in Chinese: codes and blanks as in qwen_aio/balancer/reasons.py."""

from __future__ import annotations

from collections.abc import Mapping

IN_CHINESE: Mapping[str, str] = {
    "engine_failed": "推理引擎已失效",
    "shutting_down": "正在关闭",
    "silent": "已有 {seconds:.0f} 秒没有任何消息",
    "never_heard": "尚未收到任何消息",
    "old_report": "状态报告可能已过期：尚未更新过",
    "replaced": "该地址现由另一个进程占用",
    "other_worker": "该地址现由 {worker} 占用",
    "takes_no_work": "不接收请求：{failure}",
    "loading": "正在加载模型",
    "stalled": "有请求长时间没有响应",
    "reports": "状态报告按时到达",
    "frozen": "状态报告已停滞 {seconds:.0f} 秒",
    "frozen_but_serving": "状态报告已停滞 {seconds:.0f} 秒，但仍在输出词元",
    "no_capabilities": "尚未报告支持的任务",
    "slow": "响应变慢：平均 {milliseconds:.0f} 毫秒，连续多次报告均如此",
    "not_demoted": "；但最多降级一半实例，只降最慢的",
    "set_ready": "已恢复",
    "set_drain": "不再接收新请求，处理中的请求会继续完成",
    "set_maint": "已下线",
    "restored": "与之前相同",
    "breaker_open": "失败过多，暂停分配请求 {seconds:.0f} 秒：{failure}",
    "breaker_half_open": "放行一个请求，试探是否恢复",
    "breaker_closed": "已恢复正常",
    "cost": "代价 {total:.3f}：队列 {queue_s:.3f} 秒",
    "linear": "线性得分 {total:.3f}：队列 {queue:.2f}，延迟 {latency:.2f}，抖动 {jitter:.2f}",
    "least_loaded": "负载最少：{in_flight} 个请求处理中",
    "round_robin": "轮询",
    "random": "随机",
    "only_free": "唯一空闲的实例",
    "probe_half_open": "试探半开的熔断器",
    "probe_demoted": "试探已降级的实例",
    "probe_idle": "试探久未使用的实例",
    "jitter": "，抖动 ×{factor:.2f}",
    "failures": "，失败 ×{factor:.2f}",
    "demotion": "，降级 ×{factor:.2f}",
}
