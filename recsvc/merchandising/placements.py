"""The slots of a page or a mail, and what fills each."""

from dataclasses import dataclass

from feature_store.conditions import Condition

PRODUCTS = frozenset({"product"})
CONTENT = frozenset({"content"})


@dataclass(frozen=True, slots=True)
class Source:
    """Where some of the items of a slot come from.

    Parameters
    ----------
    name : str
        A key of ``sources.SOURCES``.
    weight : float
        Its share of the list, relative to the other sources.
    """

    name: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Placement:
    """How one slot is filled.

    Parameters
    ----------
    name : str
        What callers ask for.
    title : str
        What a page may write above it.
    sources : tuple of Source
        Where its items come from, in turn, by their weights; when they have too few the list goes
        on with what is popular, and then with the rest of the catalogue.
    limit : int
        How many items, unless the request says.
    kinds : frozenset of str
        Item kinds that it shows.
    diversity : float
        0: the likeliest items; 1: nothing but variety counts (``diversity.varied``).
    freshness : float
        0: age does not matter; 1: what is new comes first (``freshness.Freshness``).
    filter : Condition or None
        Only items that match.
    fallback : bool
        Whether the list goes on at all when its sources have too few items.
    """

    name: str
    title: str
    sources: tuple[Source, ...]
    limit: int = 20
    kinds: frozenset[str] = PRODUCTS
    diversity: float = 0.0
    freshness: float = 0.0
    filter: Condition | None = None
    fallback: bool = True

    @property
    def source(self) -> str:
        """Name of the first source."""
        return self.sources[0].name


_BUILT_IN = (
    Placement("home", "For you", (Source("personal"),)),
    Placement("product", "Similar items", (Source("similar"),), limit=12),
    Placement("together", "Frequently bought together", (Source("together"),), limit=6),
    Placement("cart", "Goes well with your cart", (Source("complement"),), limit=12),
    Placement("buy_again", "Buy it again", (Source("due"),)),
    Placement("trending", "Trending now", (Source("trending"),)),
    Placement("new", "New arrivals", (Source("new"),)),
    Placement("popular", "Popular now", (Source("popular"),)),
    Placement("email", "Picked for you", (Source("personal"),), limit=6),
    Placement("content", "For you to read", (Source("personal"),), limit=6, kinds=CONTENT),
)
BUILT_IN: dict[str, Placement] = {placement.name: placement for placement in _BUILT_IN}
"""The placements that every shop has from the start."""
