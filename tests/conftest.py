"""Shared by all tests: one thread for arithmetic, no settings of this machine, patience."""

import os
from pathlib import Path

# Before numpy, FAISS and implicit are imported: more threads than cores make small tests slow.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

# A test sees the defaults and what it sets itself, on every machine.
for _name in [name for name in os.environ if name.startswith("RECSVC_")]:
    del os.environ[_name]

# But the machine may be slow, and stand still for seconds: only a test that is about a slow store,
# a late event loop or the end of a lease sets what brings one about.
os.environ |= {
    "RECSVC_STORE_TIMEOUT_MS": "5000",
    "RECSVC_MAX_LOOP_LAG_MS": "60000",
    "RECSVC_RECALL_LEASE_S": "60",
}

# Containers often forbid bytecode. Then each of the hundred processes that the tests start would
# compile 1,300 modules, which is most of what its start costs; so it is kept, but not in the tree.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    _folder = Path(__file__).parents[1] / ".pytest_cache" / "bytecode"
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(_folder))

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

# Whoever runs the suite sees what CI sees: the examples of a law depend on its code alone, and no
# example has to be quick. `make laws` looks for new ones, and remembers failures.
settings.register_profile(
    "steady",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "random",
    max_examples=400,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run coroutine tests and fixtures on asyncio, which is what uvicorn and redis-py run on."""
    return "asyncio"
