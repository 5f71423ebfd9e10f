"""The items of an iterable, fetched by a thread while earlier ones are used."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_PATIENCE_S = 5.0  # for a source that does not come back, after which its thread is left to itself


class Ahead(Generic[T]):
    """One item waits while another is used; with ``newest`` it gives way to a newer one, and is counted as dropped.

    What the source raises reaches who asks for the next item. Close it, or a thread waits for ever.
    """

    def __init__(self, source: Iterable[T], *, newest: bool = False) -> None:
        self.dropped = 0
        self._source, self._newest = source, newest
        self._waiting: list[T] = []
        self._error: BaseException | None = None
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._fetch, daemon=True, name="hiresvit-ahead")
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            if self._waiting:
                item = self._waiting.pop()
                self._changed.notify_all()
                return item
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """End it: the thread stops behind the item that it is fetching."""
        with self._changed:
            self._ended = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join(_PATIENCE_S)

    def _fetch(self) -> None:
        try:
            for item in self._source:
                if not self._put(item):
                    return
        except BaseException as error:  # the caller's to see
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, item: T) -> bool:
        with self._changed:
            if self._newest and self._waiting:
                self._waiting.clear()
                self.dropped += 1
            self._changed.wait_for(lambda: self._ended or not self._waiting)
            if not self._ended:
                self._waiting.append(item)
                self._changed.notify_all()
            return not self._ended
