"""Pages: which modules stand on them, for whom in which order; documents over the built-in ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from feature_store.documents import SiteDocuments
from feature_store.schema import Frozen
from recsvc.checks import FieldError, pointer_to
from recsvc.telemetry import get_logger

KIND = "page"
MAX_PAGES = 200
MAX_MODULES = 20
ME = "me"
"""The page whose modules customers choose themselves."""
UNKNOWN = "unknown"
"""In place of a stage for everybody of whom training knows none, or whose must not be used."""
STAGES = ("new", "active", "at_risk", "lapsed")

log = get_logger()

ModuleName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$",
        description="1 to 64 letters, digits, `_`, `-`, `.`; customers' choices name it",
        examples=["buy_again"],
    ),
]
Order = Annotated[list[ModuleName], Field(min_length=1, max_length=MAX_MODULES)]


class ModuleBody(Frozen):
    """One part of a page: a slot with a title."""

    module: ModuleName
    placement: Annotated[
        str, Field(min_length=1, max_length=64, description="what fills it", examples=["home"])
    ]
    title: Annotated[
        str,
        Field(max_length=200, description="what stands above it; empty: the placement's title"),
    ] = ""
    limit: Annotated[
        int | None, Field(ge=1, le=100, description="how many items; default the placement's")
    ] = None
    choosable: Annotated[
        bool, Field(description="whether customers may have it on their own page (`me`)")
    ] = True
    fallback: Annotated[
        Literal["popular", "none"],
        Field(
            description="`none`: only what the placement's own sources find, so that nothing stands"
            " under 'Buy it again' that was never bought; with nothing found it is left out"
        ),
    ] = "popular"


class DefaultsBody(Frozen):
    """Modules for each stage of a customer's life with the shop, in their order."""

    new: Annotated[Order | None, Field(description="bought on one day, or first lately")] = None
    active: Annotated[Order | None, Field(description="buys in their own rhythm")] = None
    at_risk: Annotated[Order | None, Field(description="late by their own rhythm")] = None
    lapsed: Annotated[Order | None, Field(description="seems to be gone")] = None
    unknown: Annotated[
        Order | None,
        Field(description="no stage is known, or may be used; without it all modules"),
    ] = None


class PageBody(Frozen):
    """What stands on a page."""

    title: Annotated[str, Field(max_length=200, description="what the page may be called")] = ""
    modules: Annotated[
        list[ModuleBody],
        Field(min_length=1, max_length=MAX_MODULES, description="from the top"),
    ]
    defaults: Annotated[
        DefaultsBody,
        Field(description="for whom other modules stand there, or in another order"),
    ] = DefaultsBody()


@dataclass(frozen=True, slots=True)
class Module:
    """One part of a page.

    Parameters
    ----------
    name : str
        What customers' choices and answers call it.
    placement : str
        What fills it.
    title : str
        What stands above it; empty for the placement's title.
    limit : int or None
        How many items; ``None`` for the placement's number.
    choosable : bool
        Whether customers may have it on their own page.
    fallback : bool
        Whether it goes on with what is popular when its own sources have too few items.
    """

    name: str
    placement: str
    title: str = ""
    limit: int | None = None
    choosable: bool = True
    fallback: bool = True


@dataclass(frozen=True, slots=True)
class Page:
    """What stands on a page.

    Parameters
    ----------
    name : str
        What callers ask for.
    title : str
        What it may be called.
    modules : tuple of Module
        From the top.
    defaults : mapping of str to tuple of str
        Names of modules by stage (`STAGES`, or `UNKNOWN`), in their order.
    """

    name: str
    title: str
    modules: tuple[Module, ...]
    defaults: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def by_name(self) -> dict[str, Module]:
        """All modules by their names."""
        return {module.name: module for module in self.modules}

    @property
    def choosable(self) -> list[str]:
        """Names of the modules that customers may choose."""
        return [module.name for module in self.modules if module.choosable]

    @property
    def needs_stage(self) -> bool:
        """Whether what stands on it depends on the customer's stage."""
        return any(stage in self.defaults for stage in STAGES)


FOR_YOU, TRENDING, NEW = (
    Module("for_you", "home", limit=12),
    Module("trending", "trending", limit=12),
    Module("new", "new", limit=12),
)
# Under this title what was never bought would be a lie.
BUY_AGAIN = Module("buy_again", "buy_again", limit=12, fallback=False)

_BUILT_IN = (
    Page("home", "Home", (FOR_YOU, BUY_AGAIN, TRENDING, NEW)),
    Page(
        "product",
        "Product",
        (Module("similar", "product", limit=12), Module("together", "together", limit=6)),
    ),
    Page(
        "cart",
        "Cart",
        (
            Module("goes_well", "cart", limit=12),
            Module("buy_again", "buy_again", limit=6, fallback=False),
        ),
    ),
    Page(
        ME,
        "Your page",
        (
            *(FOR_YOU, BUY_AGAIN, TRENDING, NEW),
            Module("popular", "popular", limit=12),
            Module("content", "content", limit=6),
        ),
        {
            # One purchase says little: first what others like, then what that one suggests.
            "new": ("trending", "new", "for_you"),
            # Who comes in a rhythm mostly comes for the same things again.
            "active": ("buy_again", "for_you", "new"),
            # Who is late has perhaps found what is due elsewhere: taste first, then the reminder.
            "at_risk": ("for_you", "buy_again", "trending"),
            # Old habits have ended; what has happened since is the reason to look again.
            "lapsed": ("trending", "new", "for_you"),
            UNKNOWN: ("for_you", "trending", "new"),
        },
    ),
)
BUILT_IN: dict[str, Page] = {page.name: page for page in _BUILT_IN}
"""The pages that every shop has from the start."""


def check_page(body: PageBody, placements: Mapping[str, object]) -> list[FieldError]:
    """Return what is wrong with a page besides its form.

    Parameters
    ----------
    body : PageBody
        The page.
    placements : mapping by str
        Those that exist.
    """
    errors = []
    known: set[str] = set()
    for at, module in enumerate(body.modules):
        if module.module in known:
            said = f"the module {module.module!r} stands on the page already"
            errors.append(FieldError(f"#/modules/{at}/module", said))
        known.add(module.module)
        if module.placement not in placements:
            said = f"there is no placement {module.placement!r}; there are: {', '.join(placements)}"
            errors.append(FieldError(f"#/modules/{at}/placement", said))
    for stage, names in body.defaults:
        errors += _check_order(stage, names or (), known)
    return errors


def _check_order(stage: str, names: Sequence[str], known: set[str]) -> list[FieldError]:
    errors = []
    for at, name in enumerate(names):
        pointer = pointer_to("defaults", stage, str(at))
        if name not in known:
            said = f"there is no module {name!r} on the page; there are: {', '.join(sorted(known))}"
            errors.append(FieldError(pointer, said))
        elif name in names[:at]:
            errors.append(FieldError(pointer, f"the module {name!r} is named twice"))
    return errors


def page_of(name: str, body: PageBody) -> Page:
    """Return a page as answers are made from it."""
    return Page(
        name,
        body.title,
        tuple(
            Module(
                *(one.module, one.placement, one.title, one.limit, one.choosable),
                fallback=one.fallback == "popular",
            )
            for one in body.modules
        ),
        {stage: tuple(names) for stage, names in body.defaults if names is not None},
    )


def body_of_page(page: Page) -> dict[str, Any]:
    """Return a page as a marketer would write it."""
    return {
        "title": page.title,
        "modules": [
            {
                "module": one.name,
                "placement": one.placement,
                "title": one.title,
                "limit": one.limit,
                "choosable": one.choosable,
                "fallback": "popular" if one.fallback else "none",
            }
            for one in page.modules
        ],
        "defaults": {stage: list(names) for stage, names in page.defaults.items()},
    }


def read_pages(documents: SiteDocuments) -> Mapping[str, Page]:
    """Return every page of a site: the built-in ones, and what was made of them."""
    found = dict(BUILT_IN)
    for one in documents.of_kind(KIND):
        try:
            found[one.id] = page_of(one.id, PageBody.model_validate(one.body))
        except ValidationError as error:
            # Written by another version. The rest of the site, and recalls, must not wait for it.
            log.error("page_unreadable", page=one.id, error=str(error))
    return found
