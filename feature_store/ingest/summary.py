"""What became of an import's rows."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path


@dataclass(slots=True)
class ImportSummary:
    """The outcome of an import.

    Parameters
    ----------
    rows_read, accepted, duplicates : int
        Rows; those that were none of these, and not left out, were refused.
    forgotten, without_consent : int
        Events that were left out: from before their person was forgotten, or of somebody who may
        not be profiled.
    mail_refusals : int
        Of how many people the rows end the consent to mail, whether or not the rows are kept.
    rejected : dict of str to int
        Refused rows by reason, most frequent first.
    rejects_file : Path or None
        Where they can be read.
    import_id : str or None
        Names the import of events; ``None`` if nothing was taken.
    seconds : float
        How long it took.
    people, items : int
        How many different ones the accepted rows name.
    first_at, last_at : datetime or None
        Times of the first and the last accepted event.
    """

    rows_read: int = 0
    accepted: int = 0
    duplicates: int = 0
    forgotten: int = 0
    without_consent: int = 0
    mail_refusals: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    rejects_file: Path | None = None
    import_id: str | None = None
    seconds: float = 0.0
    people: int = 0
    items: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None

    @property
    def rows_per_s(self) -> float:
        """Rows read in a second."""
        return self.rows_read / self.seconds if self.seconds else 0.0
