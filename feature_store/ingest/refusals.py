"""Why rows of a batch are refused: the first reason against each, and the value it is about."""

import polars as pl

from feature_store.ingest.table import Batch, Reject
from feature_store.ingest.values import as_text

_SHOWN_CHARACTERS = 200


class Refusals:
    """Collects reasons column by column.

    Parameters
    ----------
    height : int
        Rows of the batch.
    """

    def __init__(self, height: int) -> None:
        self.reason = pl.Series("reason", [None], dtype=pl.String).new_from_index(0, height)
        self._value = self.reason.alias("value")

    def add(self, reason: str, wrong: pl.Series, value: pl.Series | None = None) -> None:
        """Refuse some rows.

        Parameters
        ----------
        reason : str
            A fixed word.
        wrong : Series of bool
            Which rows; null counts as false, and a row that is refused already keeps its reason.
        value : Series, optional
            What each row has instead.
        """
        wrong = wrong.fill_null(value=False) & self.reason.is_null()
        if not wrong.any():
            return
        self.reason = self.reason.set(wrong, reason)
        if value is not None:
            self._value = self._value.zip_with(~wrong, as_text(value))

    def rejects(self, batch: Batch) -> list[Reject]:
        """Return the refused rows."""
        bad = self.reason.is_not_null()
        if not bad.any():
            return []
        rows = zip(
            batch.lines[bad.to_numpy()].tolist(),
            self.reason.filter(bad),
            self._value.filter(bad),
            strict=True,
        )
        return [
            Reject(
                batch.source,
                line,
                reason,
                "" if value is None else repr(value[:_SHOWN_CHARACTERS]),
            )
            for line, reason, value in rows
        ]
