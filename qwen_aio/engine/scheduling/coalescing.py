"""Request coalescing: decisions that ask the same question at the same time are computed once.

The first one, the leader, waits or runs; later ones follow it and get its scores. When the leader
is aborted, its work goes on under the id of the next follower; when it fails, the next follower
starts anew. Knows no torch. Owned by the engine thread.
"""

from __future__ import annotations

from qwen_aio.engine.scheduling.decision_sequence import DecisionSequence, Question


class Coalescing:
    """Unfinished decisions, grouped by question."""

    def __init__(self) -> None:
        self._groups: dict[Question, list[DecisionSequence]] = {}  # leader first, then by arrival

    def join(self, decision: DecisionSequence) -> bool:
        """Add a decision to its group; True if it follows another, so that it is not computed."""
        group = self._groups.setdefault(decision.question, [])
        group.append(decision)
        return len(group) > 1

    def leave(self, request_id: str) -> bool:
        """Remove an aborted decision; True if there is no computation to abort."""
        for group in self._groups.values():
            for index, decision in enumerate(group):
                if decision.request_id == request_id:
                    return self._leave(group, index)
        return False

    def finish(self, leader: DecisionSequence) -> list[DecisionSequence]:
        """Remove the group of `leader`; the followers, which get its scores."""
        _, *followers = self._groups.pop(leader.question)
        return followers

    def fail(self, leader: DecisionSequence) -> DecisionSequence | None:
        """Remove a failed `leader`; the follower to compute in its place, if any."""
        followers = self.finish(leader)
        if not followers:
            return None
        self._groups[leader.question] = followers
        return followers[0]

    def _leave(self, group: list[DecisionSequence], index: int) -> bool:
        if len(group) == 1:
            del self._groups[group[0].question]
            return False
        if index == 0:
            group[0].take_over(group.pop(1))
        else:
            del group[index]
        return True
