"""HTTP/1.1 as bytes: what the tests' client and engine both need, strict where a proxy must be right."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass
class Message:
    """One head: its first line and the headers, names in lower case, in the order in which they came."""

    first: str
    headers: list[tuple[str, str]] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        """Return a header that comes at most once."""
        found = [value for key, value in self.headers if key == name]
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0] if found else None


async def read_head(reader: asyncio.StreamReader) -> Message:
    """Read up to the empty line; IncompleteReadError if the other side ends before."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")[:-4].split("\r\n")
    return Message(first, [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)])


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """Read one chunk; b"" for the last one."""
    size = int(await reader.readuntil(b"\r\n"), 16)
    data = await reader.readexactly(size)
    assert await reader.readexactly(2) == b"\r\n"
    return data


async def read_body(reader: asyncio.StreamReader, head: Message) -> bytes:
    """Read the body as the head says that it comes."""
    if head.header("transfer-encoding") == "chunked":
        assert head.header("content-length") is None, "two lengths"
        parts = []
        while part := await read_chunk(reader):
            parts.append(part)
        return b"".join(parts)
    return await reader.readexactly(int(head.header("content-length") or 0))
