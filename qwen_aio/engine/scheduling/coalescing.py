"""Decisions under way, by what they ask: equal ones are computed once.

The first of them leads, whether it waits or runs; those that come later follow it and share its outcome. When the
leader is taken back its work goes on in the name of the next; when it fails the next one begins anew. Knows no torch.
Owned by the engine thread.
"""

from __future__ import annotations

from qwen_aio.engine.scheduling.decision_sequence import DecisionSequence, Question


class Coalescing:
    """Who asks the same as whom."""

    def __init__(self) -> None:
        self._crowds: dict[Question, list[DecisionSequence]] = {}  # the leader first, then in order of arrival

    def join(self, decision: DecisionSequence) -> bool:
        """Note who came; True if another asks the same already, so that there is nothing to compute."""
        crowd = self._crowds.setdefault(decision.question, [])
        crowd.append(decision)
        return len(crowd) > 1

    def leave(self, request_id: str) -> bool:
        """Somebody is taken back; True if nobody has to stop computing because of it."""
        for crowd in self._crowds.values():
            for place, decision in enumerate(crowd):
                if decision.request_id == request_id:
                    return self._leave(crowd, place)
        return False

    def finish(self, leader: DecisionSequence) -> list[DecisionSequence]:
        """Those who get the outcome of `leader`, too. Nobody follows it any more."""
        _, *followers = self._crowds.pop(leader.question)
        return followers

    def fail(self, leader: DecisionSequence) -> DecisionSequence | None:
        """`leader` has failed, which says nothing about the others: who is to be computed in its place."""
        crowd = self._crowds[leader.question]
        crowd.remove(leader)
        if crowd:
            return crowd[0]
        del self._crowds[leader.question]
        return None

    def _leave(self, crowd: list[DecisionSequence], place: int) -> bool:
        if len(crowd) == 1:
            del self._crowds[crowd[0].question]
            return False
        if place == 0:
            crowd[0].take_over(crowd.pop(1))
        else:
            del crowd[place]
        return True
