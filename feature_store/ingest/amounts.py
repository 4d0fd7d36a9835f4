"""Amounts of money as people write them: with a point or a comma, separators, a currency."""

from dataclasses import dataclass, field
from typing import Literal

import polars as pl

Decimals = Literal["auto", "comma", "point"]
"""What stands before the fraction; ``auto`` looks at the amounts of the file."""

SYMBOLS = {"€": "EUR", "£": "GBP"}
"""Signs that mean one currency only; a dollar sign does not."""

_COMMA = (
    r"^[-+]?(?:\d{1,3}(?:\.\d{3})+,\d+|\d+,(?:\d{1,2}|\d{4,})|0,\d+|\d{4,},\d+"
    r"|\d{1,3}(?:\.\d{3}){2,})$"
)
"""Can only have a decimal comma: ``1.234,5``, ``15,00``, ``0,125``, ``1.234.567``."""
_POINT = (
    r"^[-+]?(?:\d{1,3}(?:,\d{3})+\.\d+|\d+\.(?:\d{1,2}|\d{4,})|0\.\d+|\d{4,}\.\d+"
    r"|\d{1,3}(?:,\d{3}){2,})$"
)
_EITHER_COMMA = r"^[-+]?[1-9]\d{0,2},\d{3}$"
"""``1,234``: a thousand and more, or one and a bit."""
_EITHER_POINT = r"^[-+]?[1-9]\d{0,2}\.\d{3}$"
_COMMA_STYLE = r"^[-+]?(?:\d+|\d{1,3}(?:\.\d{3})+)(?:,\d+)?$"
_POINT_STYLE = r"^[-+]?(?:\d+|\d{1,3}(?:,\d{3})+)?(?:\.\d*)?(?:[eE][-+]?\d+)?$"
_SPACES = r"(\d)[\s\u00a0\u202f'’](\d{3})"


@dataclass(slots=True)
class DecimalMark:
    """How the amounts of one file are written, as far as it has been read.

    Parameters
    ----------
    said : {"auto", "comma", "point"}
        What the person has said.
    seen : set of str
        Marks that some amount can only have.
    """

    said: Decimals = "auto"
    seen: set[str] = field(default_factory=set)

    def plain(self, column: pl.Series) -> pl.Series:
        """Return amounts as ``1234.5``.

        Parameters
        ----------
        column : Series
            Text without a currency; any other type is returned as it is.

        Returns
        -------
        Series
            What cannot be read, or may mean two amounts and nothing in the file tells which
            (``1,234``), is returned unchanged where it has a comma, and so is no number.
        """
        if column.dtype != pl.String:
            return column
        text = column.str.strip_chars()
        for _ in range(2):
            # Twice, because the digits between two separators can be matched only once.
            text = text.str.replace_all(_SPACES, "$1$2")
        if self.said == "point":
            return _kept(text, _POINT_STYLE, _without(text, ","))
        if self.said == "comma":
            # A point that is no separator of thousands must not be read as one of a fraction.
            return _kept(text, _COMMA_STYLE, _turned(text))
        return self._recognised(text)

    def _recognised(self, text: pl.Series) -> pl.Series:
        comma = text.str.contains(_COMMA).fill_null(value=False)
        has_comma = text.str.contains(",", literal=True).fill_null(value=False)
        if not has_comma.any() and "comma" not in self.seen and not comma.any():
            # The usual file costs no more than this look.
            if "point" not in self.seen and text.str.contains(_POINT).any():
                self.seen.add("point")
            return text
        point = text.str.contains(_POINT).fill_null(value=False)
        self.seen |= {name for name, found in (("comma", comma), ("point", point)) if found.any()}
        result = text.zip_with(~comma, _turned(text)).zip_with(~point, _without(text, ","))
        if self.seen == {"comma"}:
            either = text.str.contains(_EITHER_COMMA) | text.str.contains(_EITHER_POINT)
            return result.zip_with(~either.fill_null(value=False), _turned(text))
        if self.seen == {"point"}:
            either = text.str.contains(_EITHER_COMMA).fill_null(value=False)
            return result.zip_with(~either, _without(text, ","))
        if self.seen:
            # Both kinds stand in the file: 1.234 is as doubtful as 1,234.
            either = text.str.contains(_EITHER_POINT).fill_null(value=False)
            return result.zip_with(~either, text + "?")
        return result


def _without(text: pl.Series, separator: str) -> pl.Series:
    return text.str.replace_all(separator, "", literal=True)


def _turned(text: pl.Series) -> pl.Series:
    return _without(text, ".").str.replace(",", ".", literal=True)


def _kept(text: pl.Series, style: str, changed: pl.Series) -> pl.Series:
    """Take `changed` where the text has the style; a mark of doubt where it has not."""
    fits = text.str.contains(style).fill_null(value=False)
    return changed.zip_with(fits, text + "?")


def split_currency(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Take the currency out of amounts: ``15.00 EUR``, ``EUR 15.00``, ``15,00 €``.

    Parameters
    ----------
    column : Series of str
        Amounts.

    Returns
    -------
    tuple of (Series of str, Series of str)
        The amounts without it, and the code of three letters or null.
    """
    text = column.str.strip_chars()
    if not text.str.contains(r"[A-Za-z€£]").any():
        return text, pl.Series("currency", [None], dtype=pl.String).new_from_index(0, len(text))
    for symbol, code in SYMBOLS.items():
        text = text.str.replace(symbol, f" {code} ", literal=True).str.strip_chars()
    code_of = text.str.extract(r"\d[\s\u00a0]*([A-Z]{3})$")
    before = text.str.extract(r"^([A-Z]{3})[\s\u00a0]*[-+]?[\d.,]")
    code_of = code_of.zip_with(code_of.is_not_null(), before).alias("currency")
    bare = text.str.replace(r"(\d)[\s\u00a0]*[A-Z]{3}$", "$1")
    bare = bare.str.replace(r"^[A-Z]{3}[\s\u00a0]*([-+]?[\d.,])", "$1")
    return bare, code_of
