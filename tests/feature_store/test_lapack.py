"""scipy's compiled modules without its packages."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import importlib.machinery, sys
if sys.argv[1] == "another layout":
    importlib.machinery.EXTENSION_SUFFIXES = []
import numpy as np
from feature_store.lapack import blas, lapack
print("scipy.linalg" in sys.modules)
upper, info = lapack.spotrf(np.array([[4, 2], [2, 5]], dtype=np.float32))
print(np.triu(upper).tolist(), info)
import scipy.linalg
print(blas.strsm is scipy.linalg.blas.strsm, lapack.spotrf is scipy.linalg.lapack.spotrf)
"""


@pytest.mark.parametrize("layout", ["as we know it", "another layout"])
def test_they_are_loaded_alone_if_they_can_and_shared_with_scipy(layout: str) -> None:
    command = [sys.executable, "-c", PROGRAM, layout]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    with_package = layout == "another layout"
    assert done.stdout.splitlines() == [
        str(with_package),
        "[[2.0, 1.0], [0.0, 2.0]] 0",
        "True True",
    ]
