"""Work that would hold the event loop for seconds, in a process of its own."""

import asyncio
import sys
from typing import Any

import orjson

from feature_store.errors import ConflictError


async def run_child(module: str, asked: dict[str, Any]) -> bytes:
    """Run a module as a program, and return what it prints.

    Parameters
    ----------
    module : str
        Its name; it reads `asked` as JSON from standard input. A URL in there may hold a password,
        which would be seen among the arguments.
    asked : dict
        What it is to do.

    Raises
    ------
    ConflictError
        If it failed or was killed, with the last line of what it said.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await process.communicate(orjson.dumps(asked))
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        said = errors.decode(errors="replace").strip().splitlines() or ["it was killed"]
        raise ConflictError(said[-1])
    return output
