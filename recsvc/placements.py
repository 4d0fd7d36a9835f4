"""The slots of a page or a mail, and what fills each."""

from dataclasses import dataclass

PRODUCTS = frozenset({"product"})
CONTENT = frozenset({"content"})


@dataclass(frozen=True, slots=True)
class Placement:
    """How one slot is filled.

    Parameters
    ----------
    name : str
        What callers ask for.
    title : str
        What a page may write above it.
    source : str
        The first source, a key of ``engine.SOURCES``; when it has too few items the list goes on
        with what is popular, and then with the rest of the catalogue.
    limit : int
        How many items, unless the request says.
    kinds : frozenset of str
        Item kinds that it shows.
    """

    name: str
    title: str
    source: str
    limit: int = 20
    kinds: frozenset[str] = PRODUCTS


_BUILT_IN = (
    Placement("home", "For you", "personal"),
    Placement("product", "Similar items", "similar", limit=12),
    Placement("together", "Frequently bought together", "together", limit=6),
    Placement("cart", "Goes well with your cart", "complement", limit=12),
    Placement("buy_again", "Buy it again", "due"),
    Placement("trending", "Trending now", "trending"),
    Placement("new", "New arrivals", "new"),
    Placement("email", "Picked for you", "personal", limit=6),
    Placement("content", "For you to read", "personal", limit=6, kinds=CONTENT),
)
BUILT_IN: dict[str, Placement] = {placement.name: placement for placement in _BUILT_IN}
"""The placements that every shop has from the start."""
