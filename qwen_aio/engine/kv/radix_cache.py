"""Which slot of the key-value memory holds which token, and what may be forgotten.

A *slot* holds one token's keys and values in every layer. Tokens that were computed are remembered in a trie over
token ids, so that a prompt with a known beginning computes only the rest. Knows numbers only: no torch, no text, no
scheduling. Owned by the engine thread.

    free + remembered + leased == total            checked by check_integrity()
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from qwen_aio.engine.kv.free_slots import FreeSlots

SlotRuns = list[range]  # slots, as runs of neighbours


@dataclass(eq=False)
class Node:
    """A remembered token. `refs` counts the leases and pins that pass through it; without any it may be forgotten."""

    token: int
    slot: int
    parent: Node | None
    depth: int  # tokens from the beginning up to and with this one
    last_used: int
    children: dict[int, Node] = field(default_factory=dict)
    refs: int = 0
    is_pinned: bool = False


@dataclass(eq=False)
class Lease:
    """Slots held by one sequence: the known beginning (shared, read only), then slots of its own."""

    shared: list[Node]
    slots: list[int]  # one per row of the sequence, in order
    runs: SlotRuns = field(init=False)  # the same slots

    def __post_init__(self) -> None:
        self.runs = _runs(self.slots)

    @property
    def num_shared(self) -> int:
        return len(self.shared)

    @property
    def own_slots(self) -> list[int]:
        return self.slots[len(self.shared) :]

    def part(self, start: int, stop: int) -> SlotRuns:
        """The slots of the rows `start` .. `stop`."""
        parts = []
        for run in self.runs:
            piece = run[max(start, 0) : max(stop, 0)]
            if piece:
                parts.append(piece)
            start, stop = start - len(run), stop - len(run)
        return parts


class RadixCache:
    """Bookkeeping of all slots: free, remembered in the trie, or leased to a running sequence."""

    def __init__(self, num_slots: int, *, min_shared: int = 1) -> None:
        """`min_shared`: a known beginning of fewer tokens is computed again, as reading it apart would cost more."""
        self.num_slots = num_slots
        self.num_pinned = 0
        self._min_shared = min_shared
        self._free = FreeSlots(num_slots)
        self._root: dict[int, Node] = {}
        self._leaves: set[Node] = set()
        self._leases: set[Lease] = set()
        self._num_nodes = 0
        self._num_locked = 0  # nodes with refs; all others can be forgotten, leaf by leaf
        self._tick = 0  # order of use

    def __repr__(self) -> str:
        leased = sum(len(lease.own_slots) for lease in self._leases)
        return f"<KvCache {len(self._free)} free, {self._num_nodes} remembered, {leased} leased of {self.num_slots}>"

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_available(self) -> int:
        """Slots a lease could get now, forgetting everything that may be forgotten."""
        return len(self._free) + self._num_nodes - self._num_locked

    def match(self, ids: Sequence[int]) -> list[Node]:
        """The longest remembered beginning of `ids`, first token first."""
        path: list[Node] = []
        children = self._root
        for token in ids:
            node = children.get(token)
            if node is None:
                break
            path.append(node)
            children = node.children
        return path

    def num_known(self, given_ids: Sequence[int]) -> int:
        """How many of the given tokens a lease would share."""
        return len(self._known(given_ids))

    def lease(self, given_ids: Sequence[int], *, num_rows: int, spare: int = 0) -> Lease | None:
        """Slots for `num_rows` rows that begin with given tokens; None while there are not enough, and `spare` more.

        The last of the given tokens always gets a slot of its own: it has to be computed for its outcome.
        """
        shared = self._known(given_ids)
        self._lock(shared)
        wanted = num_rows - len(shared)
        if wanted + spare > self.num_available:
            self._unlock(shared)
            return None
        if wanted > len(self._free):
            self._forget(wanted - len(self._free))
        lease = Lease(shared, [node.slot for node in shared] + self._free.take(wanted))
        self._leases.add(lease)
        return lease

    def release(self, lease: Lease, ids: Sequence[int]) -> None:
        """Give a lease back. `ids` are the tokens whose rows were computed, from the beginning: they are remembered."""
        self._leases.remove(lease)
        self._remember(lease, ids)
        self._unlock(lease.shared)

    def num_to_pin(self, ids: Sequence[int]) -> int:
        """How many tokens would be pinned in all if the remembered `ids` were, too."""
        return self.num_pinned + sum(not node.is_pinned for node in self.match(ids))

    def pin(self, ids: Sequence[int]) -> None:
        """Keep a remembered beginning for ever. Pinning twice is pinning once."""
        path = [node for node in self.match(ids) if not node.is_pinned]
        for node in path:
            node.is_pinned = True
        self._lock(path)
        self.num_pinned += len(path)

    def check_integrity(self) -> None:
        """Every slot is in exactly one place, and every count is right. AssertionError if not."""
        nodes = self._all_nodes()
        leased = [slot for lease in self._leases for slot in lease.own_slots]
        assert sorted([*self._free, *(node.slot for node in nodes), *leased]) == list(range(self.num_slots))
        assert self._num_nodes == len(nodes)
        assert self._leaves == {node for node in nodes if not node.children}
        refs = {node: int(node.is_pinned) for node in nodes}
        for lease in self._leases:
            for node in lease.shared:
                refs[node] += 1
        assert all(node.refs == refs[node] for node in nodes)
        assert self._num_locked == sum(node.refs > 0 for node in nodes)
        assert self.num_pinned == sum(node.is_pinned for node in nodes)

    def _known(self, given_ids: Sequence[int]) -> list[Node]:
        known = self.match(given_ids[:-1])
        return known if len(known) >= self._min_shared else []

    def _lock(self, path: list[Node]) -> None:
        self._tick += 1
        for node in path:
            node.last_used = self._tick
            self._num_locked += node.refs == 0
            node.refs += 1

    def _unlock(self, path: list[Node]) -> None:
        for node in path:
            node.refs -= 1
            self._num_locked -= node.refs == 0

    def _forget(self, num_slots: int) -> None:
        """Free at least so many slots, least recently used leaves first: a parent was used when its children were.

        What was last used together goes together: freed in part, it would leave the memory in ever smaller pieces.
        """
        heap = [(leaf.last_used, -leaf.depth, leaf.slot, leaf) for leaf in self._leaves if leaf.refs == 0]
        heapq.heapify(heap)
        enough, last_used = len(self._free) + num_slots, -1
        while len(self._free) < enough or (heap and heap[0][0] == last_used):
            last_used, *_, leaf = heapq.heappop(heap)
            parent = leaf.parent
            self._remove(leaf)
            if parent is not None and not parent.children and parent.refs == 0:
                heapq.heappush(heap, (parent.last_used, -parent.depth, parent.slot, parent))

    def _remove(self, leaf: Node) -> None:
        siblings = self._root if leaf.parent is None else leaf.parent.children
        del siblings[leaf.token]
        self._leaves.remove(leaf)
        if leaf.parent is not None and not siblings:
            self._leaves.add(leaf.parent)
        self._num_nodes -= 1
        self._free.give([leaf.slot])

    def _remember(self, lease: Lease, ids: Sequence[int]) -> None:
        """Put the computed own rows of a lease into the trie; slots of what is known already become free.

        rows     0 .. num_shared         shared: are in the trie
                 num_shared .. len(ids)  computed: into the trie, or free if somebody else was first
                 len(ids) ..             never computed: free
        """
        self._tick += 1
        node = lease.shared[-1] if lease.shared else None
        num_computed = max(len(ids), lease.num_shared)
        unused = lease.slots[num_computed:]
        for row in range(lease.num_shared, num_computed):
            children = self._root if node is None else node.children
            known = children.get(ids[row])
            if known is not None:
                unused.append(lease.slots[row])
                known.last_used = self._tick
            node = known or self._add(node, token=ids[row], slot=lease.slots[row])
        for shared in lease.shared:
            shared.last_used = self._tick
        self._free.give(unused)

    def _add(self, parent: Node | None, *, token: int, slot: int) -> Node:
        depth = 1 if parent is None else parent.depth + 1
        node = Node(token, slot, parent, depth=depth, last_used=self._tick)
        if parent is None:
            self._root[token] = node
        else:
            parent.children[token] = node
            self._leaves.discard(parent)
        self._leaves.add(node)
        self._num_nodes += 1
        return node

    def _all_nodes(self) -> list[Node]:
        nodes = list(self._root.values())
        for node in nodes:  # grows while it is walked: breadth first
            nodes.extend(node.children.values())
        return nodes


def _runs(slots: list[int]) -> SlotRuns:
    """`slots` cut where neighbours end."""
    cuts = [index for index in range(1, len(slots)) if slots[index] != slots[index - 1] + 1]
    return [range(slots[start], slots[stop - 1] + 1) for start, stop in pairwise([0, *cuts, len(slots)])]
