"""The bodies of requests, of which only so much is taken."""

from collections.abc import AsyncGenerator

from starlette.exceptions import HTTPException
from starlette.requests import Request


async def parts_of(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """The body as it comes. Raises HTTPException 413 as soon as it is larger than `most` bytes, or says that it will
    be."""
    declared, size = request.headers.get("content-length", "0"), 0
    too_large = HTTPException(413, f"more than {most >> 20} MB: send less")
    if declared.isascii() and declared.isdigit() and (len(declared) > 15 or int(declared) > most):
        raise too_large
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise too_large
        yield part
