"""BLAS and LAPACK for small matrices: scipy's compiled modules, without the package around them.

``import scipy.linalg`` runs 180 modules (f2py and array-API shims among them), which was a tenth of
what a process of ours costs to start; the two compiled modules themselves need numpy alone.
"""

import importlib
import sys
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

import scipy


def _compiled(name: str) -> Any:
    """Return one of ``scipy.linalg``'s compiled modules.

    It is known under its own name, so that whoever imports ``scipy.linalg`` later shares it.
    """
    full = f"scipy.linalg.{name}"
    if full in sys.modules:
        return sys.modules[full]
    folder = Path(scipy.__path__[0]) / "linalg"
    spec = FileFinder(str(folder), (ExtensionFileLoader, EXTENSION_SUFFIXES)).find_spec(full)
    if spec is None or spec.loader is None:
        # A scipy that is laid out otherwise: the same thing, slower to load.
        return importlib.import_module(full)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[full] = module
    return module


blas = _compiled("_fblas")
"""What ``scipy.linalg.blas`` offers."""
lapack = _compiled("_flapack")
"""What ``scipy.linalg.lapack`` offers."""
