"""Whole pages: several slots for one person from one reading, no item twice.

The modules are filled from the top, each by the one engine: the first one is what its placement
answers alone, and each further one what it answers when the items above it, and their variants,
are left out. So filters act before the cut, and every list is as full as it can be.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from feature_store.catalogue import Catalogue
from feature_store.errors import NotFoundError
from feature_store.preferences import Preferences
from recsvc.access.auth import Principal
from recsvc.answering import Question, Recommendation, choose, etag_of, write
from recsvc.checks import FieldError
from recsvc.decisions import DecisionRecorder
from recsvc.engine import Response
from recsvc.explaining.words import Words, words
from recsvc.merchandising.page_documents import BUILT_IN, ME, STAGES, UNKNOWN, Module, Page
from recsvc.merchandising.placements import BUILT_IN as PLACEMENTS
from recsvc.merchandising.site import Site
from recsvc.ranking.filling import NOWHERE, PINNED, Elsewhere
from recsvc.requests import RecommendationRequest
from recsvc.serving.worker import Worker
from recsvc.snapshot import Snapshot
from recsvc.telemetry import Metrics

OWN = {
    "personal": "blend",
    "similar": "similar",
    "together": "together",
    "complement": "together",
    "due": "repeat",
    "trending": "trending",
    "new": "new",
    "popular": "popular",
}
"""What the candidates of each source of a placement are called when it finds some itself."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Which modules stand on somebody's page.

    Parameters
    ----------
    modules : tuple of Module
        From the top.
    because : str
        ``chosen``, ``stage:NAME`` or ``default``.
    chosen : tuple of str
        What the person chose of what can still be chosen.
    missing : tuple of str
        What the person chose and the site does not offer any more.
    """

    modules: tuple[Module, ...]
    because: str
    chosen: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Filled:
    """One module and its items.

    Parameters
    ----------
    module : Module
        Which.
    question : Question
        What the engine was asked for it.
    response : Response
        What it chose.
    """

    module: Module
    question: Question
    response: Response


async def answer_page(
    worker: Worker,
    name: str,
    request: RecommendationRequest,
    caller: Principal | None = None,
    *,
    opted_out: bool = False,
    mine: bool = False,
) -> Recommendation:
    """Answer one request for a page.

    Parameters
    ----------
    worker : Worker
        Reads the person, and holds what is served.
    name : str
        The page.
    request : RecommendationRequest
        For whom, where, about what; its placement and limit do not matter.
    caller : Principal or None
        Who asks.
    opted_out : bool
        Whether the visitor's browser says ``Sec-GPC: 1``.
    mine : bool
        Whether the customer asks: reasons are then in words, and what may be chosen is listed.

    Raises
    ------
    NotFoundError
        If there is no such page.
    StoreUnavailableError
        If the recall lease has ended.
    """
    began_s = time.perf_counter()
    documents = _needs_documents(worker, name)
    question = await worker.question(
        request, caller=caller, opted_out=opted_out, documents=documents
    )
    if not documents and _needs_documents(worker, name):
        # Since a change of the page that came with what was read.
        question = await worker.question(
            request, caller=caller, opted_out=opted_out, documents=True
        )
    snapshot = worker.holder.current
    page = snapshot.site.pages.get(name)
    if page is None:
        known = ", ".join(snapshot.site.pages)
        raise NotFoundError(f"there is no page {name!r}; there are: {known}")
    question = replace(question, began_s=began_s)
    return make_page(snapshot, page, question, worker.decisions, worker.metrics, mine=mine)


def _needs_documents(worker: Worker, name: str) -> bool:
    page = worker.holder.current.site.pages.get(name)
    return page is not None and page.needs_stage


def make_page(
    snapshot: Snapshot,
    page: Page,
    question: Question,
    recorder: DecisionRecorder | None,
    metrics: Metrics,
    *,
    mine: bool = False,
) -> Recommendation:
    """Choose the items of a page and write it.

    Parameters
    ----------
    snapshot : Snapshot
        What serves.
    page : Page
        Which.
    question : Question
        What is asked, by whom, with the person's documents if the page needs them.
    recorder : DecisionRecorder or None
        Takes each module's answer for the record.
    metrics : Metrics
        Where each module's answer counts.
    mine : bool
        As for `answer_page`.
    """
    read_s = time.perf_counter()
    now_s = time.time()
    arrangement = arranged(page, question)
    filled = fill_modules(snapshot, arrangement.modules, question, now_s)
    chosen_s = time.perf_counter()
    shown = [one for one in filled if one.response.chosen]
    bodies = []
    for one in shown:
        metrics.recommended(one.module.placement, personalized=one.response.personalized)
        body = write(one.response, one.question, int(now_s * 1000), recorder, in_words=mine)
        bodies.append(body)
    spoken = words(question.request.context.get("language"))
    head = _head(snapshot, page, question, arrangement, filled, spoken)
    if mine:
        head["choosable"] = _choosable(snapshot.site, page, arrangement, spoken)
    named = [
        {"module": one.module.name, "title": title_of(snapshot.site, one.module, spoken)}
        for one in shown
    ]
    modules = [
        orjson.Fragment(orjson.dumps(name)[:-1] + b"," + body[1:])
        for name, body in zip(named, bodies, strict=True)
    ]
    body = orjson.dumps({**head, "modules": modules})
    etag = None
    if not question.named and not question.degraded:
        etag = etag_of([b"," + orjson.dumps([head, named]), *bodies])
    written_s = time.perf_counter()
    return Recommendation(
        *(body, question.named, etag, page.name, head["personalized"]),
        (read_s - question.began_s, chosen_s - read_s, written_s - chosen_s),
    )


def arranged(page: Page, question: Question) -> Arrangement:
    """Return which modules stand on a page for somebody, in their order.

    On the page ``me`` the person's own choice counts. On any page the order for the person's stage
    follows, if it may be used, then the one for those without a stage, then all modules.
    """
    known = page.by_name
    wanted = wanted_modules(question.context.preferences) if page.name == ME else ()
    chosen = tuple(name for name in wanted if name in known and known[name].choosable)
    if chosen:
        because, names = "chosen", chosen
    else:
        because, names = _default(page, _stage(question))
    missing = tuple(name for name in wanted if name not in names)
    return Arrangement(tuple(known[name] for name in names), because, chosen, missing)


def wanted_modules(preferences: Preferences) -> tuple[str, ...]:
    """Return the modules that somebody chose, each once."""
    return tuple(dict.fromkeys(preferences.page.modules)) if preferences.page else ()


def _default(page: Page, stage: str | None) -> tuple[str, tuple[str, ...]]:
    if stage is not None and stage in page.defaults:
        return f"stage:{stage}", page.defaults[stage]
    return "default", page.defaults.get(UNKNOWN) or tuple(page.by_name)


def _stage(question: Question) -> str | None:
    """Return the person's stage, which is personal: only of who may be profiled."""
    computed = question.context.computed
    if not question.profiled or not computed:
        return None
    stage = orjson.loads(computed).get("stage")
    return stage if stage in STAGES else None


def fill_modules(
    snapshot: Snapshot, modules: Sequence[Module], question: Question, now_s: float
) -> list[Filled]:
    """Choose the items of several modules from the top, none of them twice.

    Returns
    -------
    list of Filled
        One for each module whose placement there is, empty ones too.
    """
    filled: list[Filled] = []
    rows: list[int] = []
    for module in modules:
        if module.placement not in snapshot.site.placements:
            continue
        asked = replace(question.request, placement=module.placement, limit=module.limit)
        own = replace(question, request=asked)
        response = choose(snapshot, own, now_s, _standing(snapshot.catalogue, rows))
        if not module.fallback:
            response = replace(response, chosen=_found(response))
        rows += [one.row for one in response.chosen]
        filled.append(Filled(module, own, response))
    return filled


def _standing(catalogue: Catalogue, rows: Sequence[int]) -> Elsewhere:
    """Return what stands on the page already."""
    if not rows:
        return NOWHERE
    at, groups = np.array(rows, dtype=np.int64), catalogue.group_codes
    if groups is None:
        return Elsewhere(at)
    codes = groups[at]
    return Elsewhere(at, frozenset(codes[codes >= 0].tolist()))


def _found(response: Response) -> list[Any]:
    """Return what a placement's own sources found, and what rules put there."""
    own = {PINNED, *(OWN[source.name] for source in response.placement.sources)}
    return [one for one in response.chosen if one.candidates.source in own]


def _head(
    snapshot: Snapshot,
    page: Page,
    question: Question,
    arrangement: Arrangement,
    filled: Sequence[Filled],
    spoken: Words,
) -> dict[str, Any]:
    answered = {one.module.name for one in filled}
    gone = [one.name for one in arrangement.modules if one.name not in answered]
    return {
        "page": page.name,
        "title": _title(page, spoken),
        "user_id": question.request.user_id,
        "model_version": snapshot.model.version,
        "rules_version": snapshot.site.rules_version,
        "personalized": any(one.response.personalized for one in filled if one.response.chosen),
        "degraded": list(question.degraded),
        "because": arrangement.because,
        "missing": [*arrangement.missing, *gone],
        "empty": [one.module.name for one in filled if not one.response.chosen],
    }


def _choosable(
    site: Site, page: Page, arrangement: Arrangement, spoken: Words
) -> list[dict[str, Any]]:
    """Return what customers may have on their page, and what of it this one chose."""
    return [
        {
            "module": module.name,
            "title": title_of(site, module, spoken),
            "chosen": module.name in arrangement.chosen,
        }
        for module in page.modules
        if module.choosable and module.placement in site.placements
    ]


def title_of(site: Site, module: Module, spoken: Words) -> str:
    """Return what stands above a module: the site's own words, or else those of a language."""
    if module.title:
        return module.title
    placement = site.placements[module.placement]
    known, key = PLACEMENTS.get(placement.name), f"modules.{placement.name}"
    is_ours = known is not None and placement.title == known.title and key in spoken
    return spoken.text(key) if is_ours else placement.title


def _title(page: Page, spoken: Words) -> str:
    """Return what a page is called: in the site's own words, or else in those of a language."""
    known, key = BUILT_IN.get(page.name), f"pages.{page.name}"
    is_ours = known is not None and page.title == known.title and key in spoken
    return spoken.text(key) if is_ours else page.title


def check_modules(site: Site, names: Sequence[str]) -> list[FieldError]:
    """Return what is wrong with the modules that somebody wants on their own page.

    Parameters
    ----------
    site : Site
        Its page ``me`` says what may be chosen.
    names : sequence of str
        Modules, in their order.

    Returns
    -------
    list of FieldError
        Pointing into ``page.modules`` of preferences.
    """
    known = site.pages[ME].choosable
    errors = []
    for at, name in enumerate(names):
        pointer = f"#/page/modules/{at}"
        if name not in known:
            said = f"there is no module {name!r} to choose; there are: {', '.join(known)}"
            errors.append(FieldError(pointer, said))
        elif name in names[:at]:
            errors.append(FieldError(pointer, f"the module {name!r} is named twice"))
    return errors
