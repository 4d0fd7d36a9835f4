"""Shared by all tests: one thread for arithmetic, no settings of this machine, asyncio."""

import os

# Before numpy, FAISS and implicit are imported: more threads than cores make small tests slow.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

# A test sees the defaults and what it sets itself, on every machine.
for _name in [name for name in os.environ if name.startswith("RECSVC_")]:
    del os.environ[_name]

import pytest  # noqa: E402


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run coroutine tests and fixtures on asyncio, which is what uvicorn and redis-py run on."""
    return "asyncio"
