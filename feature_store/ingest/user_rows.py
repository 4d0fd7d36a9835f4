"""Rows of files become profiles of users, or are refused with the reason.

Text has no types, so a whole column decides: where every value is a number, or true or false, the
attribute is one, and else all of its values stay text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import polars as pl
from pydantic import ValidationError

from feature_store.errors import UserError
from feature_store.ingest.mapping import ATTRIBUTE, EXTERNAL_ID, USER_FIELDS, require, resolve
from feature_store.ingest.refusals import Refusals
from feature_store.ingest.table import Batch, Lines, Reject
from feature_store.ingest.values import as_number, as_text, bad_ids
from feature_store.profile import check_name, read_profile

# A leading zero belongs to a postcode or an article, not to a number.
_NUMBER = r"^-?(?:0|[1-9]\d{0,14})(?:\.\d{1,9})?$"
_BOOLEAN = r"^(?i:true|false)$"
# An empty object is a column of its own; what is computed here is nobody's to say.
_NO_ATTRIBUTES = frozenset({"loyalty", "external_ids", "computed"})
_KINDS = ("number", "boolean", "text")


@dataclass(slots=True)
class ColumnTypes:
    """What the attributes of text files are, as far as the files have been read.

    Parameters
    ----------
    text : set of str
        Attributes that stay text whatever their values are.
    """

    text: AbstractSet[str] = frozenset()
    _can_be: dict[str, set[str]] = field(default_factory=dict)

    def look(self, name: str, values: pl.Series) -> None:
        """Take the values of an attribute into account."""
        known = values.drop_nulls()
        if known.is_empty():
            return
        can_be = self._can_be.setdefault(name, set(_KINDS))
        if "number" in can_be and not known.str.contains(_NUMBER).all():
            can_be.discard("number")
        if "boolean" in can_be and not known.str.contains(_BOOLEAN).all():
            can_be.discard("boolean")

    def of(self, name: str) -> str:
        """Return ``number``, ``boolean`` or ``text``."""
        if name in self.text:
            return "text"
        can_be = self._can_be.get(name, {"text"})
        return next(kind for kind in _KINDS if kind in can_be)

    def all(self) -> dict[str, str]:
        """Return the type of each attribute."""
        return {name: self.of(name) for name in sorted(self._can_be)}


def user_mapping(given: Mapping[str, str], columns: Sequence[str], source: str) -> dict[str, str]:
    """Decide which column each field of a user is read from.

    A column that is no field becomes an attribute of its name.

    Raises
    ------
    UserError
        If the id has no column, or an attribute has a name that cannot be one.
    """
    mapping = resolve(given, columns, USER_FIELDS, source)
    require(mapping, "user_id", columns, source)
    taken = set(mapping.values())
    for column in columns:
        name = ATTRIBUTE + re.sub(r"[^A-Za-z0-9_.-]+", "_", column.strip()).strip("_")[:64]
        if column in taken or name == ATTRIBUTE or column.partition(".")[0] in _NO_ATTRIBUTES:
            continue
        if name in mapping:
            raise UserError(
                f"{source} has two columns that would be {name}: {mapping[name]!r} and {column!r}; "
                "rename one, or say --map attributes.NAME=COLUMN"
            )
        mapping[name] = column
    for field_name in mapping:
        for prefix in (ATTRIBUTE, EXTERNAL_ID):
            if field_name.startswith(prefix):
                _check_name(field_name.removeprefix(prefix), mapping[field_name])
    return mapping


def _check_name(name: str, column: str) -> None:
    try:
        check_name(name)
    except ValueError as error:
        raise UserError(f"the column {column!r} cannot be {name!r}: {error}") from None


@dataclass(frozen=True, slots=True)
class UserRows:
    """Rows that have an id, by field, text or typed as the file has them.

    Parameters
    ----------
    source : str
        File that they are from.
    frame : DataFrame
        ``user_id``, and a column of each other field that the file has.
    lines : ndarray of int64
        Where each row stands.
    rejects : list of Reject
        The other rows.
    """

    source: str
    frame: pl.DataFrame
    lines: Lines
    rejects: list[Reject]


def normalise_users(batch: Batch, mapping: Mapping[str, str], types: ColumnTypes) -> UserRows:
    """Take the columns of users out of a batch, and look at the types of their values."""
    raw = {name: batch.frame[column].alias(name) for name, column in mapping.items()}
    refusals = Refusals(batch.frame.height)
    user_id = as_text(raw["user_id"])
    refusals.add("missing_user_id", user_id.is_null())
    refusals.add("bad_user_id", bad_ids(user_id), user_id)
    columns = {"user_id": user_id}
    for name, values in raw.items():
        if name.startswith(ATTRIBUTE):
            columns[name] = _attribute(values)
            if columns[name].dtype == pl.String:
                types.look(name.removeprefix(ATTRIBUTE), columns[name])
        elif name.startswith(EXTERNAL_ID):
            columns[name] = as_text(values)
        elif name == "loyalty.points":
            columns[name] = as_number(values)
            given = as_text(values)
            refusals.add("bad_points", given.is_not_null() & columns[name].is_null(), given)
        elif name != "user_id":
            columns[name] = as_text(values)
    good = refusals.reason.is_null()
    frame = pl.DataFrame([values.alias(name) for name, values in columns.items()]).filter(good)
    lines = batch.lines[good.to_numpy()]
    return UserRows(batch.source, frame, lines, batch.rejects + refusals.rejects(batch))


def _attribute(values: pl.Series) -> pl.Series:
    if values.dtype.is_float():
        return values.fill_nan(None)
    if values.dtype.is_numeric() and not values.dtype.is_decimal():
        return values
    if values.dtype.is_decimal():
        return values.cast(pl.Float64)
    if values.dtype in (pl.Boolean, pl.List(pl.String)):
        return values
    if isinstance(values.dtype, pl.Datetime):
        utc = values.dt.replace_time_zone("UTC") if values.dtype.time_zone is None else values
        return utc.dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return as_text(values)


def profiles(
    frame: pl.DataFrame, lines: Lines, types: ColumnTypes, source: str
) -> Iterator[tuple[str, int, dict[str, Any] | Reject]]:
    """Turn rows into profiles.

    Parameters
    ----------
    frame : DataFrame
        ``UserRows.frame``.
    lines : ndarray of int64
        Where each row stands.
    types : ColumnTypes
        After the last row of all files.
    source : str
        File that they are from.

    Yields
    ------
    tuple of (str, int, dict or Reject)
        Id, line, and the profile as the store keeps it (``profile.Profile.as_document``), or why
        there is none.
    """
    typed = frame.with_columns(
        _typed(frame[name], types.of(name.removeprefix(ATTRIBUTE)))
        for name in frame.columns
        if name.startswith(ATTRIBUTE) and frame[name].dtype == pl.String
    )
    for row, line in zip(typed.iter_rows(named=True), np.asarray(lines).tolist(), strict=True):
        user_id = row.pop("user_id")
        try:
            yield user_id, line, read_profile(_document(row)).as_document()
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            reason = f"bad_{first['loc'][0] if first['loc'] else 'profile'}"
            yield user_id, line, Reject(source, line, reason, f"{where}: {first['msg']}")
        except _NoObjectError as error:
            yield user_id, line, Reject(source, line, "bad_attributes", str(error))


class _NoObjectError(ValueError):
    pass


def _typed(values: pl.Series, kind: str) -> pl.Series:
    if kind == "number":
        number = values.cast(pl.Float64)
        whole = number.cast(pl.Int64)
        return whole if not values.str.contains(".", literal=True).any() else number
    if kind == "boolean":
        return values.str.to_lowercase() == "true"
    return values


def _document(row: Mapping[str, Any]) -> dict[str, Any]:
    """Put the fields of a row together; what is null is not said."""
    document: dict[str, dict[str, Any]] = {"attributes": {}, "loyalty": {}, "external_ids": {}}
    if row.get("attributes") is not None:
        whole = _loaded(row["attributes"])
        if not isinstance(whole, dict):
            raise _NoObjectError("attributes are no JSON object")
        said = {name: value for name, value in whole.items() if value is not None}
        document["attributes"] |= said
    for name, value in row.items():
        if value is not None and name != "attributes":
            part, _, key = name.partition(".")
            document[part][key] = _plain(value, may_be_list=part == "attributes")
    return document


def _plain(value: Any, *, may_be_list: bool) -> Any:
    """Return a value as JSON has it: 12 and not 12.0, a list that was written as text."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if may_be_list and isinstance(value, str) and value.startswith("["):
        found = _loaded(value)
        return found if isinstance(found, list) else value
    return value


def _loaded(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
