"""HTTP/1.1 messages as their bytes come in: head, body by length or in chunks, and whether they are whole."""

from collections.abc import Callable

HEAD_LIMIT = 64 * 1024


class WireError(ValueError):
    """The other side does not speak HTTP/1.1."""


class Message:
    """One request or response. Pieces of the body go to `take` as they come, without their framing.

    `start` is the first line, `headers` have lower-case names; both are set once `headed`. `complete` says that the
    body has come in full; what came after it is `rest`.
    """

    def __init__(self, take: Callable[[bytes], None], *, is_response: bool) -> None:
        self._take, self._is_response = take, is_response
        self._buffer = b""
        self._left = 0  # bytes of the body or of the chunk that are still to come
        self._chunked = self._until_close = False
        self._in_chunk = False
        self.start = ""
        self.headers: dict[str, str] = {}
        self.headed = self.complete = False

    @property
    def rest(self) -> bytes:
        """What came after the message's end."""
        return self._buffer if self.complete else b""

    @property
    def status(self) -> int:
        """Of a response."""
        words = self.start.split(" ")
        if len(words) < 2 or not words[1].isdigit():
            raise WireError(f"no status line: {self.start[:100]!r}")
        return int(words[1])

    def feed(self, data: bytes) -> None:
        """Take what came from the socket."""
        self._buffer += data
        if not self.headed and not self._read_head():
            return
        if self._chunked:
            self._read_chunks()
        elif not self.complete:
            self._read_plain()

    def end(self) -> None:
        """The other side has closed: what it says by that is the end of a body without a length, and else nothing."""
        if self.headed and self._until_close:
            self.complete = True

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > HEAD_LIMIT:
                raise WireError("a head without an end")
            return False
        head, self._buffer = self._buffer[:end].decode("latin-1"), self._buffer[end + 4 :]
        self.start, *lines = head.split("\r\n")
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise WireError(f"no header: {line[:100]!r}")
            self.headers[name.lower()] = value.strip()
        self.headed = True
        self._chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        if not self._chunked:
            length = self.headers.get("content-length")
            self._until_close = self._is_response and length is None and self.status not in (204, 304)
            self._left = int(length or 0)
            self.complete = not self._left and not self._until_close
        return True

    def _read_plain(self) -> None:
        if self._until_close:
            piece, self._buffer = self._buffer, b""
        else:
            piece, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
            self._left -= len(piece)
            self.complete = not self._left
        if piece:
            self._take(piece)

    def _read_chunks(self) -> None:
        """All whole lines and all bytes of chunks; a chunk that is not there in full is passed on in parts."""
        buffer, at = self._buffer, 0
        while not self.complete:
            if self._in_chunk:
                piece = buffer[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                if piece:
                    self._take(piece)
                if self._left or len(buffer) - at < 2:
                    break
                if buffer[at : at + 2] != b"\r\n":
                    raise WireError("a chunk that is longer than it says")
                at, self._in_chunk = at + 2, False
                continue
            end = buffer.find(b"\r\n", at)
            if end < 0:
                break
            size = _chunk_size(buffer[at:end])
            if size:
                at, self._left, self._in_chunk = end + 2, size, True
            elif len(buffer) - end >= 4:  # no trailers are known here
                at, self.complete = end + 4, True
            else:
                break
        self._buffer = buffer[at:]


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError:
        raise WireError(f"no chunk size: {line[:40]!r}") from None
