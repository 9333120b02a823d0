"""Prefixes that are computed once: the beginnings that prompts share, and those kept from one call to the next.

Kept prefixes form a radix tree over tokens, as in RadixAttention (Zheng et al. 2023, arXiv:2312.07104): an edge holds
the keys and values of its tokens, so what sequences have in common is held once. The least recently used ends are
dropped first.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from nlpkit.core.decode.prefix_cache.order import SHORTEST, common_prefix
from nlpkit.core.model.cache import KVSegment

if TYPE_CHECKING:
    from torch import Tensor

    from nlpkit.core.decode.prefix_cache.store import PrefixStore
    from nlpkit.core.decode.runner import Runner


@dataclass(eq=False)
class _Node:
    """The end of an edge: its tokens, what the cache holds of them, and when it was last used.

    Their hidden states too, shape ``(tokens, d_model)``, where a search that wants them came along.
    """

    tokens: tuple[int, ...]
    segment: KVSegment | None
    parent: _Node | None
    used: int = 0
    children: dict[int, _Node] = field(default_factory=dict)
    hidden: Tensor | None = None


class PrefixCache:
    """Prefixes kept in memory, and on disk where there is a store.

    Attributes:
        max_tokens: Most tokens kept in memory; with 0 only sequences that run at the same time share.
        store: Where prefixes outlive the process, or None.
        n_tokens: Tokens kept in memory now.
        reused: Prompt tokens that were not computed again, over all requests.
    """

    def __init__(self, max_tokens: int, *, store: PrefixStore | None = None) -> None:
        """Set up an empty cache."""
        self.max_tokens = max_tokens
        self.store = store
        self.n_tokens = 0
        self.reused = 0
        self._root = _Node((), None, None)
        self._clock = 0
        self._unsaved: list[tuple[int, ...]] = []
        self._lock = threading.RLock()

    def clear(self) -> None:
        """Forget all that is in memory."""
        with self._lock:
            self._root = _Node((), None, None)
            self.n_tokens = 0
            self._unsaved.clear()

    def match(self, tokens: tuple[int, ...], *, with_hidden: bool = False) -> int:
        """Count the first tokens that are kept.

        Args:
            tokens: A prompt.
            with_hidden: Count only those whose hidden states are kept too.

        Returns:
            How many of them, from the first on, need not be computed.
        """
        with self._lock:
            found = sum(count for _, count in self._path(tokens, with_hidden))
            if self.store is not None and found < len(tokens) and not with_hidden:
                found = max(found, self.store.match(tokens))
            return found

    def load(self, runner: Runner, row: int, tokens: tuple[int, ...], *, hidden: list[Tensor] | None = None) -> int:
        """Put the kept part of a sequence into an empty row.

        Args:
            runner: Where the row is.
            row: The row.
            tokens: The sequence.
            hidden: Takes the hidden states of the tokens, part by part; None where they are not wanted.

        Returns:
            How many of its tokens the row holds now.
        """
        with self._lock:
            path = self._path(tokens, hidden is not None)
            found = sum(count for _, count in path)
            if self.store is not None and hidden is None and self.store.match(tokens) > found:
                segment = self.store.load(tokens)
                if segment is not None and runner.load_segment(row, 0, segment):
                    return segment.n_tokens
            done = 0
            self._clock += 1
            for node, count in path:
                node.used = self._clock
                if node.segment is None or not runner.load_segment(row, done, node.segment.part(0, count)):
                    break
                if hidden is not None and node.hidden is not None:
                    hidden.append(node.hidden[:count])
                done += count
            return done

    def keep(
        self, runner: Runner, row: int, tokens: tuple[int, ...], *, n_prompt: int, hidden: Tensor | None = None
    ) -> None:
        """Keep a sequence that a row holds.

        Args:
            runner: Where the row is.
            row: The row.
            tokens: The sequence, as far as it is worth keeping.
            n_prompt: How many of the tokens are a prompt's; the others are never written to disk.
            hidden: Hidden states of all tokens, where they were wanted, shape ``(tokens, d_model)``.
        """
        kept = tokens[: self.max_tokens]
        with self._lock:
            self._clock += 1
            path = list(self._walk(kept))
            done = sum(count for _, count in path)
            for node, _ in path:
                node.used = self._clock
            segment = runner.save_segment(row, done, len(kept)) if len(kept) - done >= SHORTEST else None
            if segment is not None:
                parent = self._root
                if path:
                    last, count = path[-1]
                    parent = last if count == len(last.tokens) else self._split(last, count)
                parent.children[kept[done]] = _Node(kept[done:], segment, parent, self._clock)
                self.n_tokens += len(kept) - done
                self._drop_oldest()
            if hidden is not None:
                self._keep_hidden(kept, hidden)
            prompt = kept[:n_prompt]
            if self.store is not None and self.store.wants(prompt) and prompt not in self._unsaved:
                self._unsaved.append(prompt)

    def flush(self) -> None:
        """Write prompts that were kept since the last time to the store; what is dropped already is left out."""
        with self._lock:
            if self.store is not None:
                for tokens in sorted(self._unsaved, key=len, reverse=True):
                    path = list(self._walk(tokens))
                    if self.store.wants(tokens) and sum(count for _, count in path) == len(tokens):
                        parts = [node.segment.part(0, count) for node, count in path if node.segment is not None]
                        keys = torch.cat([part.keys for part in parts], 2)
                        self.store.save(tokens, KVSegment(keys, torch.cat([part.values for part in parts], 2)))
            self._unsaved.clear()

    def _keep_hidden(self, tokens: tuple[int, ...], hidden: Tensor) -> None:
        """Add hidden states to what is kept of a sequence."""
        start = 0
        for node, count in list(self._walk(tokens)):
            if node.hidden is None:
                part = node if count == len(node.tokens) else self._split(node, count)
                part.hidden = hidden[start : start + count].clone()
            start += count

    def _path(self, tokens: tuple[int, ...], with_hidden: bool) -> list[tuple[_Node, int]]:
        """Return what `_walk` yields, up to the first node without hidden states where they are wanted."""
        path = list(self._walk(tokens))
        ends = (i for i, (node, _) in enumerate(path) if with_hidden and node.hidden is None)
        return path[: next(ends, len(path))]

    def _walk(self, tokens: tuple[int, ...]) -> Iterator[tuple[_Node, int]]:
        """Yield the nodes along a sequence and how many of their tokens it shares; the last may be shared in part."""
        node, start = self._root, 0
        while start < len(tokens):
            child = node.children.get(tokens[start])
            if child is None:
                return
            count = common_prefix(child.tokens, tokens[start : start + len(child.tokens)])
            yield child, count
            if count < len(child.tokens):
                return
            node, start = child, start + count

    def _split(self, node: _Node, at: int) -> _Node:
        """Cut an edge in two and return the node between them."""
        parent, segment = node.parent, node.segment
        if parent is None or segment is None:
            return node
        # Copies, not views: a view would keep the whole edge's memory alive when one half is dropped.
        upper = _Node(node.tokens[:at], segment.part(0, at).clone(), parent, node.used)
        parent.children[upper.tokens[0]] = upper
        if node.hidden is not None:
            upper.hidden, node.hidden = node.hidden[:at].clone(), node.hidden[at:].clone()
        node.tokens, node.segment, node.parent = node.tokens[at:], segment.part(at, segment.n_tokens).clone(), upper
        upper.children[node.tokens[0]] = node
        return upper

    def _leaves(self) -> Iterator[_Node]:
        stack = list(self._root.children.values())
        while stack:
            node = stack.pop()
            if node.children:
                stack.extend(node.children.values())
            else:
                yield node

    def _drop_oldest(self) -> None:
        while self.n_tokens > self.max_tokens:
            oldest = min(self._leaves(), key=lambda leaf: leaf.used)
            if oldest.parent is not None:
                del oldest.parent.children[oldest.tokens[0]]
            self.n_tokens -= len(oldest.tokens)
