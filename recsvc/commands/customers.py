"""What a training computed of each customer: into the store, and a short table of it."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import orjson
import polars as pl

from feature_store.errors import RecsvcError
from feature_store.forgetting.ledger import epoch_ms
from feature_store.store import Store
from recsvc.commands.output import note, say, stdout, table
from recsvc.commands.session import with_store
from recsvc.settings import Settings

STEP = "storing customers"
_BATCH = 5_000


async def store_computed(
    store: Store,
    frame: pl.DataFrame,
    began: datetime,
    report: Callable[[int, int], None] = lambda *_: None,
) -> tuple[int, int]:
    """Replace the computed values of everybody; those that do not change are not written.

    Parameters
    ----------
    store : Store
        Where people are kept.
    frame : DataFrame
        ``person`` and ``computed`` (a JSON object), one row a person.
    began : datetime
        When the training began to read: who was forgotten since then gets nothing.
    report : callable
        Told how many people are done, and of how many.

    Returns
    -------
    n_written, n_removed : int
        Removed is who bought nothing any more, and who does not want to be profiled.

    Raises
    ------
    StoreUnavailableError
        If not all of it was stored; another training, or the same one again, completes it.
    """
    former = await _former(store)
    refusing = await store.refusing(frame["person"].to_list())
    current = frame.filter(~pl.col("person").is_in(list(refusing)))
    as_of_ms = epoch_ms(began)
    written = 0
    for start in range(0, current.height, _BATCH):
        report(start, current.height)
        part = current.slice(start, _BATCH)
        documents = {
            person: orjson.loads(text)
            for person, text in zip(part["person"], part["computed"], strict=True)
        }
        changed, _ = await store.people.put_many(
            "computed", documents, by="training", as_of_ms=as_of_ms
        )
        written += changed
    gone = former.difference(current["person"].to_list())
    removed, _ = await store.people.put_many("computed", dict.fromkeys(gone), by="training")
    report(current.height, current.height)
    return written, removed


async def _former(store: Store) -> set[str]:
    """Return who has computed values now."""
    former = set[str]()
    async for batch in store.people.scan(("computed",)):
        former |= {person for person, documents in batch if documents["computed"] is not None}
    return former


def store_customers(
    settings: Settings,
    frame: pl.DataFrame,
    began: datetime,
    progress: Callable[[str, float], None],
) -> None:
    """Store the computed values, or say why not: the model is good without them."""
    if settings.redis_url is None and not (settings.data_dir / "valkey").is_dir():
        note("What was computed of customers is not stored: there has never been a server here.")
        return

    def report(done: int, total: int) -> None:
        progress(STEP, done / total if total else 1.0)

    try:
        with_store(settings, lambda store: store_computed(store, frame, began, report))
    except RecsvcError as error:
        note(
            f"What was computed of customers is not stored; the next training tries again: {error}"
        )


def show_customers(summary: dict[str, Any] | None) -> None:
    """Show what came of it: stages, value, and how far off the forecasts were in the past."""
    if not summary or not summary["n_people"]:
        return
    currency = summary["currency"] or ""
    shown = table("customers", "", title=f"\n{summary['n_people']:,} customers who bought")
    stages = ", ".join(f"{count:,} {name}" for name, count in summary["stages"].items())
    shown.add_row("stages", stages)
    if summary["median_clv"] is not None:
        days = summary["horizon_days"]
        worth = f"{summary['median_clv']:,.2f} {currency}".strip()
        shown.add_row(f"expected spend in {days} days, median", worth)
    if summary["model"] is None:
        shown.add_row("forecast", "none: too few customers came back")
    for name, text in _errors(summary["backtest"], currency):
        shown.add_row(name, text)
    stdout().print(shown)
    if (foreign := summary["n_lines_in_other_currencies"]) > 0:
        say(f"{foreign:,} purchases in other currencies than {currency} have no value here.")


def _errors(backtest: dict[str, Any] | None, currency: str) -> list[tuple[str, str]]:
    """Return the lines about the errors; none when there was too little history."""
    if backtest is None:
        return []
    rows = []
    for name, unit in (("orders", ""), ("spend", f" {currency}")):
        if (found := backtest[name]) is None:
            continue
        mean, off, plain = found["actual_mean"], found["model"]["mae"], found["own_rate"]["mae"]
        text = f"mean {mean:.2f}, off by {off:.2f}{unit} ({plain:.2f} if all went on as before)"
        rows.append((f"{name} in {backtest['days']} days", text))
    churn = backtest["churn"]
    said = f"predicted {churn['predicted']:.1%}, seen {churn['seen']:.1%}; Brier score"
    scores = f"{churn['brier']:.4f} ({churn['brier_of_the_mean']:.4f} without a model)"
    rows.append((f"no purchase in {churn['days']} days", f"{said} {scores}"))
    if (nearest := backtest["next_purchase"]) is not None:
        off, plain = (nearest[name]["median_days"] for name in ("model", "baseline"))
        text = f"off by {off:.0f} days in the median ({plain:.0f} by the mean interval)"
        rows.append(("date of the next purchase", text))
    return rows
