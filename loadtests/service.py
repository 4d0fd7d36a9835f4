"""The service under test: its demo data, its key, and the server of the demo shop."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from loadtests.client import Address, Connection, LoadError, get_request
from loadtests.processes import Server, cpu_s, family, free_port, pin

RECSVC = str(Path(sys.executable).with_name("recsvc"))
STORE_NAMES = ("valkey-server", "redis-server")


def run_recsvc(data_dir: Path, *arguments: str) -> str:
    """Run a command of recsvc and return its output.

    Raises
    ------
    LoadError
        If it fails.
    """
    done = subprocess.run(
        [RECSVC, "--data-dir", str(data_dir), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LoadError(f"recsvc {' '.join(arguments)} failed ({done.returncode})")
    return done.stdout


def ensure_demo(data_dir: Path) -> None:
    """Make the demo shop if it is not there."""
    if not (data_dir / "models" / "registry.json").exists():
        run_recsvc(data_dir, "demo", "--no-serve")


@contextmanager
def bench_key(data_dir: Path) -> Iterator[str]:
    """Make an API key for reading recommendations, and revoke it at the end."""
    made = json.loads(
        run_recsvc(data_dir, "keys", "create", "--name", "bench", "--scope", "recs:read", "--json")
    )
    try:
        yield made["key"]
    finally:
        run_recsvc(data_dir, "keys", "revoke", made["key_id"])


class DemoService:
    """``recsvc serve`` on a data directory, pinned to a core.

    Parameters
    ----------
    data_dir : Path
        With a published model.
    key : str
        An API key that may read recommendations.
    core, store_core : int
        Where the worker and the embedded store are kept.
    log : file
        Where its output goes.
    """

    def __init__(
        self, data_dir: Path, key: str, core: int, store_core: int, log: IO[bytes]
    ) -> None:
        self.data_dir = data_dir
        self.key = key
        port = free_port()
        command = [RECSVC, "--data-dir", str(data_dir), "serve", "--port", str(port)]
        self.server = Server(
            [*command, "--workers", "1"], Address("127.0.0.1", port), core, log, STORE_NAMES
        )
        self._store_core = store_core

    def wait(self) -> None:
        """Return when it answers, and move the store to its core."""
        self.server.wait()
        for pid in family(self.server.pid, only=STORE_NAMES) or self._shared_store():
            pin(pid, {self._store_core})

    def _shared_store(self) -> list[int]:
        """Return the embedded store when another process of the data directory has started it."""
        try:
            pid = int((self.data_dir / "valkey" / "valkey.pid").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return []
        return [pid] if Path(f"/proc/{pid}").exists() else []

    def store_cpu_s(self) -> float:
        """Return the processor time of the store so far."""
        return sum(map(cpu_s, family(self.server.pid, only=STORE_NAMES) or self._shared_store()))

    def get(self, target: str) -> bytes:
        """Return the body of one answer."""
        connection = Connection(self.server.address)
        try:
            return connection.ask(get_request(target, self.server.address, self.key))
        finally:
            connection.close()

    def _personal_answer(self, user_id: str) -> bytes:
        """Return an answer that is personal and whole; a busy machine may need a second try."""
        answer: dict[str, Any] = {}
        for _ in range(5):
            body = self.get(f"/v1/recommendations?placement=home&user_id={user_id}")
            answer = json.loads(body)
            if answer["personalized"] and not answer["degraded"]:
                return body
        missing = ", ".join(answer["degraded"]) or "nothing"
        raise LoadError(f"the answers for {user_id} are not personal; missing: {missing}")

    def n_degraded(self) -> int:
        """Return how many answers lacked something so far."""
        lines = self.get("/metrics").decode().splitlines()
        counts = [line for line in lines if line.startswith("recsvc_degraded_answers_total")]
        return round(sum(float(line.rpartition(" ")[2]) for line in counts))

    def what_is_on(self, user_ids: list[str]) -> dict[str, Any]:
        """Ask for some customers and return what their answers had.

        Raises
        ------
        LoadError
            If an answer was not personal, was degraded, was short or lacked a reason.
        """
        codes: Counter[str] = Counter()
        n_bytes, model = 0, ""
        for user_id in user_ids:
            body = self._personal_answer(user_id)
            answer = json.loads(body)
            codes.update(item["reason"]["code"] for item in answer["items"])
            n_bytes, model = n_bytes + len(body), answer["model_version"]
        metrics = self.get("/metrics").decode()
        if "recsvc_recommendations_total" not in metrics:
            raise LoadError("the service counts no recommendations in /metrics")
        return {
            "key": "API key with scope recs:read, looked up by HMAC",
            "metrics": f"{len(metrics.splitlines())} lines in /metrics",
            "reasons": dict(codes.most_common()),
            "items": sum(codes.values()) / len(user_ids),
            "body_bytes": round(n_bytes / len(user_ids)),
            "model": model,
            "store": os.environ.get("RECSVC_REDIS_URL", "embedded, every write synchronised"),
            "workers": 1,
        }
