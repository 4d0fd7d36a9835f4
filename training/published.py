"""Evaluation on published splits, to compare with what papers report.

Two files, one user a line: ``user item item ...``, as LightGCN (He et al., SIGIR 2020) and its
successors use. Full ranking over all items of both files, training items masked; every test item of
a user counts. There are no times, so everything is equally old; parameters are chosen on a part of
the training pairs, never on the test pairs.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from feature_store.artifact import RecommenderFactory
from feature_store.catalogue import Catalogue
from feature_store.errors import UserError
from feature_store.schema import PURCHASE_CODE
from training.blend import Blend, default_blend, fit_blend
from training.config import TrainConfig
from training.dataset import Interactions
from training.evaluate import Evaluation, Subject, evaluate
from training.fit import fit
from training.progress import Progress, silent
from training.split import Split, positions_of
from training.workshop import Workshop

ALPHAS = (1.0, 10.0, 40.0, 100.0)
HELD_OUT = 0.2
MAX_TUNING_USERS = 3_000
MASKED = {"all": True}
_NOW_MS = 1_500_000_000_000
"""Any moment: all pairs bear it, so nothing has an age."""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Which user has which item: codes into the ids of both files.

    Parameters
    ----------
    person, item : ndarray of uint32, shape (m,)
        One entry a pair.
    """

    person: npt.NDArray[np.uint32]
    item: npt.NDArray[np.uint32]


def evaluate_published(
    train_file: Path,
    test_file: Path,
    config: TrainConfig,
    make_recommender: RecommenderFactory,
    progress: Progress = silent,
) -> Evaluation:
    """Evaluate on a published split.

    Parameters
    ----------
    train_file, test_file : Path
        One user a line: ``user item item ...``.
    config : TrainConfig
        Parameters; the ALS confidence `alpha` and the blend are chosen on the training pairs.
    make_recommender : RecommenderFactory
        Makes the serving engine, for the row ``served``.
    progress : callable
        Told stage and share.

    Returns
    -------
    Evaluation
        Its only subset is ``all``.

    Raises
    ------
    UserError
        If a file cannot be read or holds no pairs, or nobody is in both.
    """
    known, train, test = read_split(train_file, test_file)
    rows = np.arange(len(known.item_ids), dtype=np.int32)
    catalogue = Catalogue.from_item_ids(known.item_ids.to_list())
    with tempfile.TemporaryDirectory(prefix="recsvc-") as folder:
        shop = Workshop(config, catalogue, rows, make_recommender, Path(folder), progress)
        alpha, blend = _choose(shop, known, train)
        config = replace(config, alpha=alpha)
        split = _split(known, train, test)
        if len(split.persons) == 0:
            raise UserError(f"no user of {test_file} has items in {train_file}")
        fitted = fit(split.train, config, _NOW_MS, similar=False, stage="fit", progress=progress)
        index = shop.index_of(fitted, split.train)
        with shop.serving(fitted, index, blend.weights) as recommender:
            protocol = {"protocol": "published", "train": train_file.name, "test": test_file.name}
            return evaluate(
                shop.subject(split, fitted, recommender),
                config,
                progress,
                protocol={**protocol, "alpha": alpha},
                subsets=MASKED,
            )


def read_split(train_file: Path, test_file: Path) -> tuple[Interactions, Pairs, Pairs]:
    """Read both files.

    Returns
    -------
    known : Interactions
        Without events: the ids behind the codes.
    train, test : Pairs
        Distinct pairs.
    """
    frames = [_read(path) for path in (train_file, test_file)]
    every = pl.concat(frames)
    persons, items = (every[name].unique().sort() for name in ("person", "item"))
    codes = {
        name: pl.DataFrame({name: values}).with_row_index("code")
        for name, values in (("person", persons), ("item", items))
    }
    train, test = (
        Pairs(
            frame.join(codes["person"], on="person", maintain_order="left")["code"].to_numpy(),
            frame.join(codes["item"], on="item", maintain_order="left")["code"].to_numpy(),
        )
        for frame in frames
    )
    return Interactions(_events(Pairs(*_NOTHING)), persons, items), train, test


_NOTHING = (np.zeros(0, dtype=np.uint32), np.zeros(0, dtype=np.uint32))


def _read(path: Path) -> pl.DataFrame:
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {error}") from error
    pairs = pl.DataFrame(
        {"person": [words[0] for words in lines if words], "item": [w[1:] for w in lines if w]},
        schema={"person": pl.String, "item": pl.List(pl.String)},
    )
    pairs = pairs.explode("item").drop_nulls().unique(maintain_order=True)
    if pairs.height == 0:
        raise UserError(f"{path} holds no pairs; one user a line is expected: user item item ...")
    return pairs


def _events(pairs: Pairs) -> pl.DataFrame:
    """Return pairs as purchases of one moment, each user's in one basket."""
    return pl.DataFrame({"person": pairs.person, "item": pairs.item}).select(
        "person",
        "item",
        pl.lit(PURCHASE_CODE, dtype=pl.UInt8).alias("type"),
        pl.lit(_NOW_MS, dtype=pl.Int64).alias("t_ms"),
        pl.col("person").alias("basket"),
        pl.lit(False).alias("public"),
    )


def _split(known: Interactions, train: Pairs, test: Pairs) -> Split:
    """Return a split whose truths are the test pairs of people who have training pairs."""
    before, after = _events(train), _events(test)
    people = before["person"].unique()
    after = after.filter(pl.col("person").is_in(people.implode()))
    candidates = np.arange(len(known.item_ids), dtype=np.uint32)
    persons = after["person"].unique().sort().to_numpy()
    mine = before.filter(pl.col("person").is_in(pl.Series(persons, dtype=pl.UInt32).implode()))
    return Split(
        Interactions(before, known.persons, known.item_ids),
        _NOW_MS,
        candidates,
        persons,
        positions_of(after, persons, candidates),
        positions_of(mine, persons, candidates),
        len(people),
        np.bincount(train.item, minlength=len(candidates)),
    )


def _choose(shop: Workshop, known: Interactions, train: Pairs) -> tuple[float, Blend]:
    """Choose `alpha` and the blend on training pairs that are held out."""
    rng = np.random.default_rng(shop.config.seed)
    held_out = rng.random(len(train.item)) < HELD_OUT
    rest = Pairs(train.person[~held_out], train.item[~held_out])
    tried_on = rng.permutation(np.unique(train.person))[:MAX_TUNING_USERS]
    judged = held_out & np.isin(train.person, tried_on)
    split = _split(known, rest, Pairs(train.person[judged], train.item[judged]))
    if len(split.persons) == 0:
        return shop.config.alpha, default_blend()
    best: tuple[float, float, Blend] | None = None
    for done, alpha in enumerate(ALPHAS):
        shop.progress("choose", done / len(ALPHAS))
        config = replace(shop.config, alpha=alpha, new_share=1.0)
        fitted = fit(split.train, config, _NOW_MS, together=False, similar=False)
        index = shop.index_of(fitted, split.train, exact=True)
        with shop.serving(fitted, index, default_blend().weights) as recommender:
            subject: Subject = shop.subject(split, fitted, recommender)
            blend = fit_blend(recommender, split, subject.states, subject.positions(), config)
        reached = blend.ndcg or 0.0
        if best is None or reached > best[1]:
            best = alpha, reached, blend
    shop.progress("choose", 1.0)
    assert best is not None
    return best[0], best[2]
