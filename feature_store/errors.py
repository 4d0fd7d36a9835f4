"""The few named errors of recsvc.

Each carries one line that says what was wrong and what to do. The command line turns
:class:`UserError` into exit code 2 and every other :class:`RecsvcError` into exit code 1; the API
turns them into problem documents.
"""


class RecsvcError(Exception):
    """Base of every error that recsvc raises on purpose."""


class UserError(RecsvcError):
    """A mistake that the caller can mend: a bad option, a missing file, an unknown column."""


class NotFoundError(RecsvcError):
    """The named thing does not exist."""


class ConflictError(RecsvcError):
    """Somebody else changed the thing first, or holds it."""


class StaleRevisionError(ConflictError):
    """The thing has another revision than the one that the writer has seen."""


class ArtifactError(RecsvcError):
    """A model artifact or a catalogue file is missing, truncated or corrupt."""


class StoreUnavailableError(RecsvcError):
    """The Redis server did not answer, or answered that it cannot serve."""


class OverloadedError(RecsvcError):
    """There is more work than can be done now; ask again after ``retry_after_s`` seconds.

    Parameters
    ----------
    message : str
        What is overloaded.
    retry_after_s : float
        When to ask again, in seconds.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimitedError(OverloadedError):
    """The caller sent more than it may in this time; the rest has to wait."""
