"""What stands for memory, files or work of this process is neither copied nor pickled unseen."""

from __future__ import annotations

from typing import NoReturn, SupportsIndex

from quantloom.errors import Unsupported


class Unshared:
    """A base that refuses `copy.copy`, `copy.deepcopy` and `pickle`.

    A copy of the attributes alone would be a second owner of one memory: closing it would leave the
    first half closed.
    """

    __slots__ = ()
    _instead = "make another one"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise Unsupported(f"a {type(self).__name__} is not copied or pickled; {self._instead}")
