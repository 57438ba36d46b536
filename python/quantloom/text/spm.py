"""Score-driven merges with byte fallback: the `llama` tokenizer of GGUF (SentencePiece BPE).

Of all neighbours whose joined text is a token, the pair with the highest score is merged first,
the leftmost one of equals; what is no token in the end is written as its UTF-8 bytes.
(Kudo and Richardson, "SentencePiece", 2018.)
"""

from __future__ import annotations

import re
from heapq import heapify, heappop, heappush

from quantloom.errors import TokenizerError
from quantloom.text.vocabulary import NORMAL, USER_DEFINED, Vocabulary

SPACE = "\u2581"
_CACHED_WORDS = 1 << 16
_CACHED_LENGTH = 64


class ScoreMerges:
    """Turns text whose spaces are already written as U+2581 into ids, in O(n log n)."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        mergeable = (NORMAL, USER_DEFINED)
        scores = vocabulary.scores
        self._entries = {
            text: (-scores[index], index)
            for text, index in vocabulary.ids.items()
            if vocabulary.types[index] in mergeable
        }
        self._longest = max(map(len, self._entries), default=0)
        self._byte_ids = vocabulary.byte_ids
        self._unknown = vocabulary.special.get("unknown")
        # Where no token reaches over the start of a word, words are merged one by one and kept.
        inside = re.search(f"[^{SPACE}\0]{SPACE}", "\0".join(self._entries))
        self._words = None if inside else re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")
        self._cache: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Ids of text whose spaces are U+2581."""
        if self._words is None:
            return self._merge(text)
        ids: list[int] = []
        cache = self._cache
        for word in self._words.findall(text):
            known = cache.get(word)
            if known is None:
                known = self._merge(word)
                if len(word) <= _CACHED_LENGTH and len(cache) < _CACHED_WORDS:
                    cache[word] = known
            ids += known
        return ids

    def _merge(self, text: str) -> list[int]:
        entries, longest = self._entries, self._longest
        count = len(text)
        # Symbol i is text[i:end[i]]; end[i] == i marks one that its left neighbour took in.
        end = list(range(1, count + 1))
        before = list(range(-1, count - 1))
        heap = []
        for left in range(count - 1):
            entry = entries.get(text[left : left + 2])
            if entry is not None:
                heap.append((entry[0], left, left + 1, left + 2))
        heapify(heap)
        while heap:
            _, left, right, stop = heappop(heap)
            if end[left] != right or end[right] != stop or right == stop:
                continue
            end[left] = stop
            end[right] = right
            if stop < count:
                before[stop] = left
                if end[stop] - left <= longest:
                    entry = entries.get(text[left : end[stop]])
                    if entry is not None:
                        heappush(heap, (entry[0], left, stop, end[stop]))
            previous = before[left]
            if previous >= 0 and stop - previous <= longest:
                entry = entries.get(text[previous:stop])
                if entry is not None:
                    heappush(heap, (entry[0], previous, left, stop))
        ids: list[int] = []
        position = 0
        while position < count:
            piece = text[position : end[position]]
            entry = entries.get(piece)
            if entry is not None:
                ids.append(entry[1])
            else:
                self._fall_back(piece, ids)
            position = end[position]
        return ids

    def _fall_back(self, character: str, ids: list[int]) -> None:
        found = [self._byte_ids.get(byte) for byte in character.encode()]
        known = [index for index in found if index is not None]
        if len(known) == len(found):
            ids += known
        elif self._unknown is not None:
            ids.append(self._unknown)
        else:
            raise TokenizerError(
                f"the vocabulary has no token for {character!r}, no bytes to write it with "
                "and no token for the unknown",
                subject="text",
            )
