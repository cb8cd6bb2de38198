"""The radix cache: which slot of the KvPool holds which token, and which ones may be evicted.

A *slot* holds one token's keys and values in every layer. Computed tokens are cached in a trie over
token ids, so that a prompt with a cached prefix computes only the rest. Knows numbers only: no
torch, no text, no scheduling. Owned by the engine thread.

    free + cached + leased == total            checked by check_integrity()
"""

from __future__ import annotations

import heapq
from collections import abc
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from qwen_aio.engine.kv.free_slots import FreeSlots

SlotRuns = list[range]  # slots as runs of neighbours


@dataclass(eq=False, slots=True)
class Node:
    """A cached token. `refs` counts leases and pins through it; with none it may be evicted."""

    token: int
    slot: int
    parent: Node | None  # none of the root
    depth: int  # tokens up to and including this one
    last_used: int
    children: dict[int, Node] = field(default_factory=dict)
    refs: int = 0
    is_pinned: bool = False


@dataclass(eq=False)
class Lease:
    """Slots of one sequence: the cached prefix (shared, read only), then its own slots."""

    shared: list[Node]
    slots: list[int]  # one per row of the sequence, in order

    @cached_property
    def runs(self) -> SlotRuns:
        """The same slots as runs of neighbours."""
        slots = self.slots
        cuts = [index for index in range(1, len(slots)) if slots[index] != slots[index - 1] + 1]
        return [range(slots[start], slots[stop - 1] + 1) for start, stop in pairwise([0, *cuts, len(slots)])]

    @cached_property
    def slot_array(self) -> NDArray[np.int32]:
        """The same slots for the C++ library."""
        return np.array(self.slots, np.int32)

    @property
    def num_shared(self) -> int:
        return len(self.shared)

    @property
    def own_slots(self) -> list[int]:
        return self.slots[len(self.shared) :]

    def runs_of(self, start: int, stop: int) -> SlotRuns:
        """The slots of the rows `start` .. `stop`."""
        parts = []
        for run in self.runs:
            if part := run[max(start, 0) : max(stop, 0)]:
                parts.append(part)
            start, stop = start - len(run), stop - len(run)
        return parts


class RadixCache:
    """All slots: free, cached in the trie, or leased to a running sequence."""

    def __init__(self, num_slots: int, *, min_shared: int = 1) -> None:
        """`min_shared`: a shorter cached prefix is computed again, as reading it costs more."""
        self.num_slots = num_slots
        self.num_pinned = 0
        self._min_shared = min_shared
        self._free = FreeSlots(num_slots)
        self._root = Node(token=-1, slot=-1, parent=None, depth=0, last_used=0, refs=1)  # no token
        self._leaves: set[Node] = set()
        self._leases: set[Lease] = set()
        self._num_nodes = 0
        self._num_locked = 0  # nodes with refs; all others can be evicted, leaf by leaf
        self._tick = 0  # order of use

    def __repr__(self) -> str:
        leased = sum(len(lease.own_slots) for lease in self._leases)
        return f"<RadixCache {len(self._free)} free, {self._num_nodes} cached, {leased} leased of {self.num_slots}>"

    @property
    def num_available(self) -> int:
        """Slots that a lease could get now, evictions included."""
        return len(self._free) + self._num_nodes - self._num_locked

    def match_prefix(self, ids: abc.Sequence[int]) -> list[Node]:
        """The longest cached prefix of `ids`, first token first."""
        path: list[Node] = []
        children = self._root.children
        for token in ids:
            node = children.get(token)
            if node is None:
                break
            path.append(node)
            children = node.children
        return path

    def shared_prefix(self, given_ids: abc.Sequence[int]) -> list[Node]:
        """The cached prefix that a lease would share."""
        cached = self.match_prefix(given_ids[:-1])
        return cached if len(cached) >= self._min_shared else []

    def lease(self, given_ids: abc.Sequence[int], *, num_rows: int, spare: int = 0) -> Lease | None:
        """Slots for `num_rows` rows, `given_ids` first; None if these and `spare` are too many.

        The last given token always gets a slot of its own: it is computed for its logits.
        """
        shared = self.shared_prefix(given_ids)
        self._lock(shared)
        num_own = num_rows - len(shared)
        if num_own + spare > self.num_available:
            self._unlock(shared)
            return None
        if num_own > len(self._free):
            self._evict(num_own)
        lease = Lease(shared, [node.slot for node in shared] + self._free.take(num_own))
        self._leases.add(lease)
        return lease

    def release(self, lease: Lease, ids: abc.Sequence[int]) -> None:
        """End a lease and cache `ids`, the tokens of its computed rows from the first one on."""
        self._leases.remove(lease)
        self._insert(lease, ids)
        self._unlock(lease.shared)

    def num_to_pin(self, ids: abc.Sequence[int]) -> int:
        """The number of pinned tokens if the cached prefix `ids` were pinned too."""
        return self.num_pinned + sum(not node.is_pinned for node in self.match_prefix(ids))

    def pin(self, ids: abc.Sequence[int]) -> None:
        """Never evict this cached prefix. Pinning is idempotent."""
        path = [node for node in self.match_prefix(ids) if not node.is_pinned]
        for node in path:
            node.is_pinned = True
        self._lock(path)
        self.num_pinned += len(path)

    def check_integrity(self) -> None:
        """AssertionError unless every slot is in exactly one place and every count is right."""
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

    def _evict(self, num_free: int) -> None:
        """Evict until so many slots are free, least recently used leaves first.

        A parent is at least as recent as its children. Nodes last used together are evicted
        together, which keeps the free slots in long runs.
        """
        heap = [(leaf.last_used, -leaf.depth, leaf.slot, leaf) for leaf in self._leaves if leaf.refs == 0]
        heapq.heapify(heap)
        last_used = -1
        while len(self._free) < num_free or (heap and heap[0][0] == last_used):
            last_used, *_, leaf = heapq.heappop(heap)
            parent = self._remove(leaf)
            if not parent.children and parent.refs == 0:
                heapq.heappush(heap, (parent.last_used, -parent.depth, parent.slot, parent))

    def _remove(self, leaf: Node) -> Node:
        """Free the slot of a leaf; its parent."""
        parent = leaf.parent
        assert parent is not None
        del parent.children[leaf.token]
        self._leaves.remove(leaf)
        if not parent.children and parent is not self._root:
            self._leaves.add(parent)
        self._num_nodes -= 1
        self._free.give([leaf.slot])
        return parent

    def _insert(self, lease: Lease, ids: abc.Sequence[int]) -> None:
        """Insert the computed own rows of a lease into the trie; all other own slots become free.

        rows     0 .. num_shared         shared: in the trie already
                 num_shared .. len(ids)  computed: inserted, or free if cached meanwhile
                 len(ids) ..             never computed: free
        """
        self._tick += 1
        node = lease.shared[-1] if lease.shared else self._root
        num_computed = max(len(ids), lease.num_shared)
        unused = lease.slots[num_computed:]
        for row in range(lease.num_shared, num_computed):
            cached = node.children.get(ids[row])
            if cached is not None:
                unused.append(lease.slots[row])
                cached.last_used = self._tick
            node = cached or self._add(node, token=ids[row], slot=lease.slots[row])
        for shared in lease.shared:
            shared.last_used = self._tick
        self._free.give(unused)

    def _add(self, parent: Node, *, token: int, slot: int) -> Node:
        node = parent.children[token] = Node(token, slot, parent, parent.depth + 1, self._tick)
        self._leaves.discard(parent)
        self._leaves.add(node)
        self._num_nodes += 1
        return node

    def _all_nodes(self) -> list[Node]:
        nodes = list(self._root.children.values())
        for node in nodes:  # the list grows during the walk: breadth first
            nodes.extend(node.children.values())
        return nodes
