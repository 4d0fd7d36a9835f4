"""One training run, from the event log to a model that serves."""

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from feature_store.artifact import (
    ArtifactWriter,
    ModelArtifact,
    RecommenderFactory,
    remove_partial,
)
from feature_store.catalogue import Catalogue
from feature_store.catalogue_files import CatalogueFiles
from feature_store.change_log import ChangeLog
from feature_store.consent_log import consenting
from feature_store.errors import ConflictError, UserError
from feature_store.event_log import EventLog
from feature_store.forgetting.ledger import read_ledger
from feature_store.preferences import ProfilingDefault
from feature_store.registry import ModelRegistry
from feature_store.schema import format_time
from training.blend import Blend, default_blend, fit_blend
from training.config import TrainConfig
from training.customers.run import Customers, compute_customers
from training.dataset import DAY_MS, Interactions, read_interactions, with_unknown_items
from training.evaluate import Evaluation, evaluate
from training.fit import Fitted, fit
from training.gate import Gate, judge
from training.items import read_content
from training.progress import Progress, part, silent
from training.split import split_at, window_start_ms
from training.starts import Attributes, learn_starts
from training.workshop import Workshop

STAGES = (
    "load", "learn blend", "fit for evaluation", "evaluate", "fit on everything", "customers",
    "publish",
)  # fmt: skip
"""The stages of a run, in order, as `progress` is told them."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The outcome of a run.

    Parameters
    ----------
    version : str
        The model; it is on disk even if it was refused.
    published : bool
        Whether it serves now.
    reason : str
        Why, or why not.
    gate : Gate
        What the gate said.
    evaluation : Evaluation or None
        ``None`` when there was nobody to test on.
    manifest : dict
        Of the model.
    customers : Customers or None
        What was computed of each customer, for the store; ``None`` if it was not asked for.
    """

    version: str
    published: bool
    reason: str
    gate: Gate
    evaluation: Evaluation | None
    manifest: dict[str, object]
    customers: Customers | None = None


def train(
    data_dir: Path,
    config: TrainConfig,
    make_recommender: RecommenderFactory,
    *,
    now: datetime,
    start: datetime | None = None,
    end: datetime | None = None,
    publish: bool = True,
    customers: bool = True,
    attributes: Attributes | None = None,
    progress: Progress = silent,
) -> TrainResult:
    """Learn from the event log, and let the model serve if it is good.

    Whenever the run is killed, what served before goes on serving: a model appears in one rename,
    and serves from the replacement of one small file on.

    Parameters
    ----------
    data_dir : Path
        With ``events/``, ``catalogue/`` and ``models/``.
    config : TrainConfig
        Parameters.
    make_recommender : RecommenderFactory
        Makes the serving engine, so that what is evaluated is what is served.
    now : datetime
        The time of the run: it names the model. Ages are counted from the newest event.
    start, end : datetime, optional
        Learn from events since, and before.
    publish : bool
        Whether a good model shall serve; if not it only appears in the list.
    customers : bool
        Whether to compute stage, value, forecast and tastes of each customer.
    attributes : mapping, optional
        What the shop says of people, for where those without a history start.
    progress : callable
        Told the stage (one of `STAGES`) and the share of it that is done.

    Raises
    ------
    UserError
        If the data directory cannot be written.
    ArtifactError
        If the catalogue is damaged.
    """
    progress(STAGES[0], 0.0)
    registry = ModelRegistry(data_dir / "models")
    remove_partial(registry.models_dir)
    with EventLog(data_dir).reading():
        interactions = read_interactions(learnable_events(data_dir, config.profiling, start, end))
    catalogue = CatalogueFiles(data_dir / "catalogue").load().catalogue
    n_rows = catalogue.n_rows
    catalogue, rows = with_unknown_items(catalogue, interactions)
    content = read_content(catalogue, rows)
    shop = Workshop(
        config, catalogue, rows, make_recommender, registry.models_dir, progress, content
    )
    progress(STAGES[0], 1.0)
    blend = learn_blend(shop, interactions)
    evaluation = evaluate_split(shop, interactions, blend)
    fitted, starts = _fit_everything(shop, interactions, now, attributes or {})
    index = shop.index_of(fitted, interactions)
    # Listed again: files that were merged meanwhile are gone.
    with EventLog(data_dir).reading():
        events = learnable_events(data_dir, config.profiling, start, end)
        known = _customers(events, catalogue, progress) if customers else None
    progress(STAGES[6], 0.0)
    n_purchases = interactions.purchases.height
    gate = judge(evaluation, index.manifest["recall_at_100"], n_purchases, config)
    with ArtifactWriter(registry.models_dir, now) as writer:
        fitted.write(writer, index, blend.weights)
        _describe(writer, interactions, blend, evaluation, gate, known)
        writer.manifest["train"]["catalogue_rows"] = n_rows
        writer.manifest["starts"] = starts
        artifact = writer.publish()
    published, reason = _publish(registry, artifact, gate, config, now, wanted=publish)
    progress(STAGES[6], 1.0)
    return TrainResult(
        artifact.version, published, reason, gate, evaluation, artifact.manifest, known
    )


def learnable_events(
    data_dir: Path,
    profiling: ProfilingDefault = "opt_out",
    start: datetime | None = None,
    end: datetime | None = None,
) -> pl.LazyFrame:
    """Read the event log without what is forgotten, scrubbed yet or not, and without who refuses.

    Parameters
    ----------
    data_dir : Path
        With ``events/`` and ``changes/``.
    profiling : {"opt_out", "opt_in"}
        What holds for who was never asked.
    start, end : datetime, optional
        First moment that counts, and the first that no longer does.

    Returns
    -------
    LazyFrame
        Columns of ``event_log.EVENT_LOG_SCHEMA``.
    """
    changes = ChangeLog(data_dir)
    log = read_ledger(changes).kept_of(EventLog(data_dir).scan(start, end))
    return consenting(log, changes, profiling)


def _fit_everything(
    shop: Workshop, interactions: Interactions, now: datetime, attributes: Attributes
) -> tuple[Fitted, dict[str, object] | None]:
    """Return the model of all events, and what was measured of starts by attributes."""
    fitted = fit(
        interactions,
        shop.config,
        interactions.newest_ms or int(now.timestamp() * 1_000),
        content=shop.content,
        stage=STAGES[4],
        progress=shop.progress,
    )
    starts, measured = learn_starts(shop, fitted, interactions, attributes)
    fitted.arrays.update(starts)
    return fitted, measured


def evaluate_events(
    events: pl.LazyFrame,
    config: TrainConfig,
    make_recommender: RecommenderFactory,
    *,
    catalogue: Catalogue | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Evaluate on any purchases, without a shop around them: nothing is published.

    Parameters
    ----------
    events : LazyFrame
        Columns of ``event_log.EVENT_LOG_SCHEMA``.
    config : TrainConfig
        Parameters.
    make_recommender : RecommenderFactory
        Makes the serving engine, for the row ``served``.
    catalogue : Catalogue, optional
        What is known of the items; their ids alone by default.
    progress : callable
        Told stage and share.

    Raises
    ------
    UserError
        If nobody has a purchase both before the test window and in it.
    """
    progress(STAGES[0], 0.0)
    interactions = read_interactions(events)
    catalogue = catalogue or Catalogue.from_item_ids(interactions.item_ids.to_list())
    catalogue, rows = with_unknown_items(catalogue, interactions)
    progress(STAGES[0], 1.0)
    with tempfile.TemporaryDirectory(prefix="recsvc-") as folder:
        content = read_content(catalogue, rows)
        shop = Workshop(config, catalogue, rows, make_recommender, Path(folder), progress, content)
        evaluation = evaluate_split(shop, interactions, learn_blend(shop, interactions))
    if evaluation is None:
        raise UserError(
            f"nobody bought both before the last {config.test_days:g} days and in them: choose"
            " another --test-days, or bring more purchases"
        )
    return evaluation


def learn_blend(shop: Workshop, interactions: Interactions) -> Blend:
    """Learn the blend from the last window before the test window.

    Returns
    -------
    Blend
        The default weights when the data do not reach so far back.
    """
    stage = STAGES[1]
    shop.progress(stage, 0.0)
    end_ms = window_start_ms(interactions, shop.config.test_days)
    start_ms = end_ms - round(shop.config.test_days * DAY_MS)
    split = split_at(interactions, start_ms, end_ms)
    if len(split.persons) < shop.config.min_blend_users:
        shop.progress(stage, 1.0)
        return default_blend(len(split.persons))
    fitted = fit(
        split.train,
        shop.config,
        start_ms,
        content=shop.content,
        together=False,
        similar=False,
        newcomers=False,
    )
    shop.progress(stage, 0.4)
    # Exact search: the blend shall not learn the gaps of one index.
    index = shop.index_of(fitted, split.train, exact=True)
    with shop.serving(fitted, index, default_blend().weights) as recommender:
        subject = shop.subject(split, fitted, recommender)
        shop.progress(stage, 0.6)
        blend = fit_blend(recommender, split, subject.states, subject.positions(), shop.config)
    shop.progress(stage, 1.0)
    return blend


def evaluate_split(shop: Workshop, interactions: Interactions, blend: Blend) -> Evaluation | None:
    """Evaluate on the last window a model that knows only what was before it.

    Returns
    -------
    Evaluation or None
        ``None`` when nobody has a purchase both before the window and in it.
    """
    split = split_at(interactions, window_start_ms(interactions, shop.config.test_days))
    if len(split.persons) == 0:
        shop.progress(STAGES[3], 1.0)
        return None
    fitted = fit(
        split.train,
        shop.config,
        split.start_ms,
        content=shop.content,
        similar=False,
        newcomers=False,
        stage=STAGES[2],
        progress=shop.progress,
    )
    index = shop.index_of(fitted, split.train)
    with shop.serving(fitted, index, blend.weights) as recommender:
        return evaluate(shop.subject(split, fitted, recommender), shop.config, shop.progress)


def _describe(
    writer: ArtifactWriter,
    interactions: Interactions,
    blend: Blend,
    evaluation: Evaluation | None,
    gate: Gate,
    customers: Customers | None,
) -> None:
    """Say in the manifest what a model was learned from and how good it is."""
    times_ms = interactions.frame["t_ms"]
    edges = [
        format_time(datetime.fromtimestamp(edge_ms / 1_000, UTC))
        for edge_ms in [*times_ms.head(1), *times_ms.tail(1)]
    ]
    writer.manifest["train"] = {
        "first_event_at": edges[0] if edges else None,
        "last_event_at": edges[1] if edges else None,
        "n_events": interactions.n_events,
        "n_purchases": interactions.purchases.height,
        "n_people": len(interactions.persons),
    }
    writer.manifest["blend"] |= {
        "fitted": blend.fitted,
        "n_users": blend.n_users,
        "ndcg": blend.ndcg,
        "shares": blend.shares,
    }
    writer.manifest["evaluation"] = evaluation.document if evaluation else None
    writer.manifest["gate"] = gate.as_manifest()
    # Parameters and errors only: people are not in artifacts.
    writer.manifest["customers"] = None if customers is None else customers.summary


def _customers(events: pl.LazyFrame, catalogue: Catalogue, progress: Progress) -> Customers:
    return compute_customers(events, catalogue, part(progress, STAGES[5], 0.0, 1.0))


def _publish(
    registry: ModelRegistry,
    artifact: ModelArtifact,
    gate: Gate,
    config: TrainConfig,
    now: datetime,
    *,
    wanted: bool,
) -> tuple[bool, str]:
    """Let a model serve if everything speaks for it; say why or why not."""
    if not wanted:
        return False, f"not asked to: `recsvc models promote {artifact.version}`"
    if not gate.passed:
        return False, f"refused by the gate: {gate.reason}"
    try:
        registry.publish(artifact.version, now)
    except ConflictError as error:
        return False, str(error)
    registry.prune(config.keep_models)
    return True, gate.reason
