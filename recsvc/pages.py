"""Whole pages: several slots for one person from one reading, no item twice."""

from collections.abc import Sequence

from recsvc.checks import FieldError
from recsvc.page_documents import ME
from recsvc.site import Site


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
