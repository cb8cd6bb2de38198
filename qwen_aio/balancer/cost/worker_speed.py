"""How fast one worker gets work done, learnt from its last results."""

from __future__ import annotations

from collections import deque
from statistics import fmean

from qwen_aio.balancer.params import Params

SLOWEST, FASTEST = 0.01, 1000.0  # at a speed of 0 a worker's cost would be infinite for ever
SHORTEST_SERVICE_S = 0.0001


class WorkerSpeed:
    """Reference seconds of work that a worker does in a second of service. One per `Worker`."""

    def __init__(self, params: Params, first: float = 1.0) -> None:
        """`first` is the value until results come."""
        self.value = first
        self._params = params
        self._results: deque[float] = deque(maxlen=params.speed_results)

    def __repr__(self) -> str:
        return f"<WorkerSpeed {self.value:.2f} after {len(self._results)} results>"

    @property
    def is_known(self) -> bool:
        return bool(self._results)

    def record(self, *, work_s: float, service_s: float) -> None:
        """Work of `work_s` took `service_s`. A drop counts fully at once, a rise in part."""
        self._results.append(work_s / max(service_s, SHORTEST_SERVICE_S))
        change = fmean(self._results) - self.value
        step = change if change < 0 else self._params.speed_rise * change
        self.value = min(max(self.value + step, SLOWEST), FASTEST)
