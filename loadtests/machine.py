"""The machine of a measurement: what it is, and how busy others kept it. Linux only."""

import os
import platform
import time
from pathlib import Path

from loadtests.client import LoadError
from loadtests.processes import TICKS_PER_S


def require_linux() -> None:
    """Refuse machines whose processes cannot be kept on a core.

    Raises
    ------
    LoadError
        On anything but Linux with two cores.
    """
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        raise LoadError("benchmarks need Linux and two cores: one for the server, one for the load")


def describe_machine() -> str:
    """Return processor, cores, kernel and Python in one line."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cores = len(os.sched_getaffinity(0))
    system = f"{platform.system()} {platform.release()}"
    return f"{model}, {cores} cores, {system}, Python {platform.python_version()}"


def _busy_s() -> float:
    """Return the processor time of everybody since the start of the machine, in seconds."""
    line = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S


class Neighbours:
    """How much of the machine others use while something of ours is measured.

    Parameters
    ----------
    n_cores : int
        Cores of the machine.
    """

    def __init__(self, n_cores: int) -> None:
        self._n_cores = n_cores
        self._began_s = time.monotonic()
        self._busy_s = _busy_s()

    def share(self, own_cpu_s: float) -> float:
        """Return the share of all cores that others used since this object was made.

        Parameters
        ----------
        own_cpu_s : float
            Processor time that our own processes used meanwhile.
        """
        passed_s = time.monotonic() - self._began_s
        others_s = _busy_s() - self._busy_s - own_cpu_s
        return max(0.0, others_s / (passed_s * self._n_cores))
