"""The words of an item's title and brand, in the form in which they are searched."""

import polars as pl

WORDS = "words"


def _normal(text: pl.Expr) -> pl.Expr:
    """Return words in lower case with one space before each."""
    lower = text.str.normalize("NFKC").str.to_lowercase()
    return pl.lit(" ") + lower.str.replace_all(r"[^\p{L}\p{N}\p{M}]+", " ").str.strip_chars()


def words_of(frame: pl.DataFrame) -> pl.Series:
    """Return the words of each item.

    Parameters
    ----------
    frame : DataFrame
        With ``title`` and ``brand``.

    Returns
    -------
    Series of String, named :data:`WORDS`
        Each word after a space.
    """
    text = pl.concat_str("title", "brand", separator=" ", ignore_nulls=True)
    return frame.select(_normal(text).alias(WORDS))[WORDS]


def words_in(text: str) -> list[str]:
    """Return the words of a question, in the same form."""
    found: str = pl.select(_normal(pl.lit(text))).item()
    return found.split()
