"""The end of a container's log, in a bounded part of our memory, however long the log or its lines are."""

from collections.abc import Iterator

from requests import Response

from router.runtimes.docker_client import Call, DockerClient, Refused

CHUNK_BYTES = 65_536
HEADER_BYTES = 8  # of a frame: which stream, three zeros, the length of what follows
USUAL_LINE_BYTES = 64


async def read_tail(client: DockerClient, container_id: str, tail_bytes: int) -> str:
    """Docker counts lines, not bytes: more of them are asked for until there are enough bytes."""
    lines = max(16, tail_bytes // USUAL_LINE_BYTES)
    while True:
        query = {"stdout": "1", "stderr": "1", "tail": str(min(lines, tail_bytes))}
        try:
            end, frames = await client.consume(
                Call("GET", f"/containers/{container_id}/logs", query),
                lambda response: keep_end(response, tail_bytes),
            )
        except Refused as refused:
            if refused.answer in (404, 409):  # gone, or going
                return ""
            raise
        if len(end) >= tail_bytes or frames < lines or lines >= tail_bytes:
            return end.decode(errors="ignore") if len(end) >= tail_bytes else end.decode(errors="replace")
        lines *= 8


def keep_end(response: Response, size: int) -> tuple[bytes, int]:
    """The last bytes of what the frames hold, and how many frames there were."""
    end, frames = bytearray(), 0
    for payload, begins in read_frames(response.iter_content(CHUNK_BYTES)):
        frames += begins
        end += payload
        if len(end) > size + CHUNK_BYTES:
            del end[: -size or None]
    return bytes(end[-size:]) if size else b"", frames


def read_frames(chunks: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Pieces of what was printed, and whether a frame begins with it. A frame may be longer than a piece."""
    header, left, begins = b"", 0, False
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            if left == 0:
                missing = HEADER_BYTES - len(header)
                header, rest = header + bytes(rest[:missing]), rest[missing:]
                if len(header) == HEADER_BYTES:
                    left, header, begins = int.from_bytes(header[4:], "big"), b"", True
                continue
            piece, rest = rest[:left], rest[left:]
            left -= len(piece)
            yield bytes(piece), begins
            begins = False
