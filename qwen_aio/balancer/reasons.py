"""Why something is as it is: a code with values, and the English sentence they make.

/status and the logs show the English sentence; the dashboard makes one in the language of the page.
"""

from __future__ import annotations

from collections.abc import Mapping

SENTENCES: Mapping[str, str] = {
    # the health of a worker
    "engine_failed": "its engine has failed",
    "shutting_down": "it is shutting down",
    "silent": "nothing was heard of it for {seconds:.0f} s",
    "never_heard": "nothing was heard of it yet",
    "old_report": "its status report may be old: it has not moved yet",
    "replaced": "another process listens at its address now",
    "other_worker": "{worker} listens at its address now",
    "takes_no_work": "it takes no work: {failure}",
    "loading": "it is loading its model",
    "stalled": "a call on it got nothing for too long",
    "reports": "its status reports arrive on time",
    "frozen": "its status report stands still for {seconds:.0f} s",
    "frozen_but_serving": "its status report stands still for {seconds:.0f} s, but tokens come from it",
    "no_capabilities": "it has not said yet what it can do",
    "slow": "slow: {milliseconds:.0f} ms on average, report after report",
    "not_demoted": "; but at most half of the workers are demoted, the slowest",
    # what an operator set
    "set_ready": "resumed",
    "set_drain": "gets no new work, what runs may end",
    "set_maint": "in maintenance",
    "restored": "as it was before",
    # the circuit breaker
    "breaker_open": "no calls for {seconds:.0f} s, since too many failed: {failure}",
    "breaker_half_open": "one call may try whether it works again",
    "breaker_closed": "it works again",
    # the placement of a request
    "cost": "cost {total:.3f}: queue {queue_s:.3f} s",
    "linear": "linear {total:.3f}: queue {queue:.2f}, latency {latency:.2f}, jitter {jitter:.2f}",
    "least_loaded": "least loaded: {in_flight} in flight",
    "round_robin": "round robin",
    "random": "random",
    "only_free": "only free worker",
    "probe_half_open": "probe of a half-open breaker",
    "probe_demoted": "probe of a demoted worker",
    "probe_idle": "probe of an idle worker",
    "jitter": ", jitter x{factor:.2f}",
    "failures": ", failures x{factor:.2f}",
    "demotion": ", demotion x{factor:.2f}",
}


class Reason(str):
    """An English sentence with its code and values. Other messages, such as errors, are str."""

    code: str
    values: Mapping[str, object]
    more: tuple[Reason, ...]  # continue the sentence

    def __new__(cls, code: str, *more: Reason, **values: object) -> Reason:
        """The sentence of `code` with `values` in its blanks, continued by `more`."""
        reason = super().__new__(cls, "".join([SENTENCES[code].format(**values), *more]))
        reason.code, reason.values, reason.more = code, values, more
        return reason

    def said_with(self, sentences: Mapping[str, str]) -> str:
        """The same in another language; `sentences` has the codes and blanks of SENTENCES."""
        return sentences[self.code].format(**self.values) + "".join(part.said_with(sentences) for part in self.more)
