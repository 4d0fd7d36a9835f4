"""From a column of any type to ids, times and numbers, a whole column at once.

A value that cannot be read becomes null here; who calls compares with the column as it was, and
so tells a missing value from a bad one.
"""

import polars as pl

from feature_store.schema import check_id

_ASCII_ID = r"^[\x20-\x7e]{1,128}$"
_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M%#z",
    "%Y-%m-%d %H:%M",
)
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999
_MS = pl.Datetime("ms")
_MS_UTC = pl.Datetime("ms", "UTC")


def as_text(column: pl.Series) -> pl.Series:
    """Return a column as text, exactly as it stands; an empty value is null.

    Whole numbers have no fraction: an integer column with gaps often arrives as floats, and 12.0
    and 12 are the same customer.
    """
    if column.dtype.is_float():
        column = column.fill_nan(None)
        whole = column.cast(pl.Int64, strict=False)
        is_whole = (column == whole.cast(column.dtype)).fill_null(value=False)
        return (
            pl.select(
                pl.when(is_whole).then(whole.cast(pl.String)).otherwise(column.cast(pl.String))
            )
            .to_series()
            .alias(column.name)
        )
    if column.dtype == pl.Binary:
        return pl.Series(column.name, [_decoded(value) for value in column], dtype=pl.String)
    if column.dtype.is_nested():
        return pl.Series(column.name, [None] * len(column), dtype=pl.String)
    text = column.cast(pl.String)
    return text.set(text == "", None)


def _decoded(value: bytes | None) -> str | None:
    # A NUL is in no id and no number: a value that is not UTF-8 will be refused.
    return value.decode(errors="replace").replace("\ufffd", "\0") if value else None


def bad_ids(text: pl.Series) -> pl.Series:
    """Tell which values of a text column are not allowed as ids (``schema.check_id``).

    Returns
    -------
    Series of bool
        False for null.
    """
    suspect = text.is_not_null() & (~text.str.contains(_ASCII_ID) | text.is_in([".", ".."]))
    if not suspect.any():
        return suspect
    wrong = [value for value in text.filter(suspect).unique() if not is_id(value)]
    return suspect & text.is_in(wrong)


def is_id(value: str) -> bool:
    """Tell whether a value is allowed as an id."""
    try:
        check_id(value)
    except ValueError:
        return False
    return True


def as_number(column: pl.Series) -> pl.Series:
    """Return a column as float64; what is not a finite number is null."""
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    elif not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        column = as_text(column)
    number = column.cast(pl.Float64, strict=False)
    return number.set(~number.is_finite(), None)


def as_time(column: pl.Series, timezone: str) -> pl.Series:
    """Return a column as UTC times to the millisecond.

    Parameters
    ----------
    column : Series
        Parquet times and dates; ISO 8601 text with or without a zone, a day alone, also with
        slashes or as ``YYYYMMDD``; seconds, milliseconds, microseconds or nanoseconds since 1970.
    timezone : str
        What a time without a zone is in; one that a change of the clocks skips is read as an hour
        later, one that occurs twice as the first.

    Returns
    -------
    Series of Datetime("ms", "UTC")
        Null where no time can be read.
    """
    times = _read_times(column, timezone)
    # Beyond the years 1 to 9999 no calendar of Python reaches.
    return times.set(~times.to_physical().is_between(_FIRST_MS, _LAST_MS), None)


def _read_times(column: pl.Series, timezone: str) -> pl.Series:
    if isinstance(column.dtype, pl.Datetime):
        if column.dtype.time_zone is not None:
            return column.dt.convert_time_zone("UTC").cast(_MS_UTC)
        return _in_zone(column.cast(_MS), timezone)
    if column.dtype == pl.Date:
        return _in_zone(column.cast(_MS), timezone)
    if column.dtype.is_numeric():
        return _from_number(column, timezone)
    return _from_text(as_text(column), timezone)


def _from_text(text: pl.Series, timezone: str) -> pl.Series:
    empty = pl.Series([None], dtype=_MS_UTC)
    # 2024/03/01T10:00:00 UTC -> 2024-03-01 10:00:00Z
    plain = (
        text.str.strip_chars()
        .str.replace(r"^(\d{4})/(\d{1,2})/(\d{1,2})", "$1-$2-$3")
        .str.replace(r"^(\d{4}-\d{1,2}-\d{1,2})[Tt]", "$1 ")
        .str.replace(r" ?(?:[zZ]|UTC|GMT)$", "Z")
    )
    times = empty.new_from_index(0, len(text))
    for form in _FORMATS:
        missing = times.is_null() & plain.is_not_null()
        if not missing.any():
            return times.alias(text.name)
        tried = plain.set(~missing, None)
        read = tried.str.to_datetime(form, strict=False, time_unit="ms")
        times = times.zip_with(~missing, read if form.endswith("%#z") else _in_zone(read, timezone))
    missing = times.is_null() & plain.is_not_null()
    if missing.any():
        days = plain.set(~missing, None).str.to_date("%Y-%m-%d", strict=False).cast(_MS)
        times = times.zip_with(days.is_null(), _in_zone(days, timezone))
        numbers = plain.set(times.is_not_null(), None).cast(pl.Float64, strict=False)
        times = times.zip_with(numbers.is_null(), _from_number(numbers, timezone))
    return times.alias(text.name)


def _from_number(numbers: pl.Series, timezone: str) -> pl.Series:
    """Read seconds since 1970 or a thousandth, millionth of them, and days as YYYYMMDD."""
    value = pl.col("value")
    if numbers.dtype.is_integer():
        as_ms = (
            pl.when(value.abs() < 100_000_000_000)
            .then(value * 1000)
            .when(value.abs() < 100_000_000_000_000)
            .then(value)
            .when(value.abs() < 100_000_000_000_000_000)
            .then(value // 1000)
            .otherwise(value // 1_000_000)
        )
        frame = pl.DataFrame({"value": numbers.cast(pl.Int64, strict=False)})
    else:
        as_ms = (
            pl.when(value.abs() < 1e11)
            .then(value * 1e3)
            .when(value.abs() < 1e14)
            .then(value)
            .when(value.abs() < 1e17)
            .then(value / 1e3)
            .otherwise(value / 1e6)
            .round()
            .cast(pl.Int64, strict=False)
        )
        finite = numbers.cast(pl.Float64)
        frame = pl.DataFrame({"value": finite.set(~finite.is_finite(), None)})
    times = frame.select(as_ms.cast(_MS).dt.replace_time_zone("UTC")).to_series()
    # Eight digits: nobody bought anything at 20170101 s after 1970, which is in August.
    day_like = frame["value"].is_between(19_700_101, 29_991_231)
    if day_like.any():
        whole = frame["value"].set(~day_like, None).cast(pl.Int64).cast(pl.String)
        days = whole.str.to_date("%Y%m%d", strict=False).cast(_MS)
        times = times.zip_with(days.is_null(), _in_zone(days, timezone))
    return times.alias(numbers.name)


def _in_zone(naive: pl.Series, timezone: str) -> pl.Series:
    if timezone == "UTC":
        return naive.dt.replace_time_zone("UTC")
    local = naive.dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null")
    if local.null_count() > naive.null_count():
        later = naive.dt.offset_by("1h").dt.replace_time_zone(
            timezone, ambiguous="earliest", non_existent="null"
        )
        local = local.zip_with(local.is_not_null(), later)
    return local.dt.convert_time_zone("UTC")
