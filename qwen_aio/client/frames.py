"""Server-sent events, read from bytes. Pure."""

from __future__ import annotations

from collections.abc import Iterator

MAX_EVENT_BYTES = 1_000_000


class FrameReader:
    """Bytes, cut anywhere, -> server-sent events. Holds at most MAX_EVENT_BYTES."""

    def __init__(self) -> None:
        self._rest = bytearray()  # a line that has not ended
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0  # of the event so far

    def feed(self, chunk: bytes) -> Iterator[tuple[str, bytes]]:
        """Name and data of the events that `chunk` completes. Raises ValueError above the limit."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            self._grow(end)
            line = bytes(self._rest).removesuffix(b"\r")
            self._rest.clear()
            field, _, value = line.partition(b":")  # a comment has no field
            if field == b"event":
                self._name = value.removeprefix(b" ").decode("utf-8", "replace")
            elif field == b"data":
                self._data.append(value.removeprefix(b" "))
            elif not line:
                if self._data:
                    yield self._name or "message", b"\n".join(self._data)
                self._name, self._data, self._size = "", [], 0
        self._grow(rest)

    def _grow(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > MAX_EVENT_BYTES:
            raise ValueError(f"an event has more than {MAX_EVENT_BYTES} bytes")
        self._rest += part
