"""What customers read, by language: templates in TOML, which a shop can replace or add to.

``texts/`` has English and German. A folder of the shop's own (the setting ``words_dir``) may hold
files of the same form: of a language that is there only what shall be different, of another one as
much as there is; what is missing is said in English.
"""

import re
import string
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from feature_store.errors import UserError

DEFAULT = "en"
BUILT_IN = ("en", "de")
MAX_TITLE = 120
"""Characters of a title that are shown inside of a sentence."""
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]+"
)
"""What shows nothing, ends a line or turns the direction of what comes after it. Joiners, which
scripts and emoji need, are not among them."""
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")
_FORMS = frozenset({"one", "other"})


@dataclass(frozen=True, slots=True)
class Template:
    """One text.

    Parameters
    ----------
    other : str
        With the names of its parts in braces.
    one : str or None
        What is said where the part ``n`` is 1.
    """

    other: str
    one: str | None = None


class Words:
    """The texts of one language.

    Parameters
    ----------
    language : str
        Its tag, in lower case.
    templates : mapping of str to Template
        By ``section.key``; complete.
    """

    def __init__(self, language: str, templates: Mapping[str, Template]) -> None:
        self.language = language
        self._templates = templates

    def __contains__(self, key: str) -> bool:
        return key in self._templates

    def text(self, key: str, **parts: object) -> str:
        """Return a text with its parts filled in.

        Parameters
        ----------
        key : str
            Section and name, as in ``reasons.popular``.
        **parts
            What stands in its braces; ``n`` chooses between one and more.

        Raises
        ------
        KeyError
            If there is no such text, or it needs another part.
        """
        template = self._templates[key]
        chosen = template.one if template.one is not None and parts.get("n") == 1 else None
        for name, part in parts.items():
            if isinstance(part, str):
                parts[name] = seen(part)
        return (template.other if chosen is None else chosen).format(**parts)

    def counted(self, key: str, n: int, **parts: object) -> str:
        """Return a text about a number of things, which it writes as the language does."""
        template = self._templates[key]
        chosen = template.one if template.one is not None and n == 1 else template.other
        return chosen.format(n=self.number(n), **parts)

    def number(self, value: float, digits: int = 0) -> str:
        """Return a number as the language writes it."""
        plain = f"{value:,.{digits}f}"
        swapped = {",": self.text("lists.thousands"), ".": self.text("lists.decimal")}
        return "".join(swapped.get(one, one) for one in plain)

    def plain(self, value: float) -> str:
        """Return a number with at most two digits behind the point."""
        text = f"{value:.2f}".rstrip("0").rstrip(".")
        return self.number(value, len(text.partition(".")[2]))

    def day(self, time: str) -> str:
        """Return the day of an RFC 3339 time as the language writes it."""
        year, month, day = time[:10].split("-")
        return self.text("lists.day", year=year, month=month, day=day)

    def titles(self, titles: Sequence[str]) -> str:
        """Return titles in quotes, as a list in a sentence."""
        return self.joined([self.text("lists.quoted", title=_shortened(one)) for one in titles])

    def joined(self, parts: Sequence[str]) -> str:
        """Return parts as a list in a sentence."""
        if len(parts) < 2:
            return "".join(parts)
        comma = self.text("lists.comma")
        return self.text("lists.last", before=comma.join(parts[:-1]), last=parts[-1])


def seen(text: str) -> str:
    """Return a text that others wrote without what would change the sentence that it stands in."""
    return text if text.isprintable() else _UNSEEN.sub(" ", text)


def _shortened(title: str) -> str:
    title = " ".join(seen(title).split())
    return title if len(title) <= MAX_TITLE else title[: MAX_TITLE - 1].rstrip() + "…"


class Library:
    """All languages that a service speaks.

    Parameters
    ----------
    books : mapping of str to (mapping of str to Template)
        Templates by language tag; that of :data:`DEFAULT` is complete.
    """

    def __init__(self, books: Mapping[str, Mapping[str, Template]]) -> None:
        self._books = books
        self._known: dict[str, Words] = {
            language: Words(language, self._whole(language)) for language in books
        }

    @property
    def languages(self) -> tuple[str, ...]:
        """Tags of all languages, sorted."""
        return tuple(sorted(self._books))

    def words(self, language: str | None) -> Words:
        """Return the texts of a language, or of what comes nearest: de-AT, de, English.

        Parameters
        ----------
        language : str or None
            A tag (RFC 5646), in any case, with hyphens or underscores.
        """
        return self._known[self.nearest(language) or DEFAULT]

    def nearest(self, language: str | None) -> str | None:
        """Return the known tag that a language falls back to; ``None`` if there is none."""
        return next((one for one in _wider(language or "") if one in self._books), None)

    def preferred(self, accept_language: str) -> str:
        """Return the known language that an ``Accept-Language`` likes best (RFC 9110, 12.5.4)."""
        liked: list[tuple[float, int, str]] = []
        for place, part in enumerate(accept_language[:1_000].split(",")):
            tag, _, parameter = part.partition(";")
            quality = parameter.strip().removeprefix("q=") if parameter.strip() else "1"
            wanted = re.fullmatch(r"0(\.\d{0,3})?|1(\.0{0,3})?", quality)
            known = self.nearest(tag.strip())
            if wanted and known and float(quality) > 0:
                liked.append((-float(quality), place, known))
        return min(liked)[2] if liked else DEFAULT

    def _whole(self, language: str) -> dict[str, Template]:
        whole: dict[str, Template] = {}
        for one in [DEFAULT, *reversed(list(_wider(language)))]:
            whole.update(self._books.get(one, {}))
        return whole


def _wider(language: str) -> Iterable[str]:
    """Yield a tag in its plain form, then what is left without its last parts."""
    parts = language.lower().replace("_", "-").split("-")
    for n in range(len(parts), 0, -1):
        yield "-".join(parts[:n])


def parse(document: Mapping[str, Any], where: str) -> dict[str, Template]:
    """Return the templates of a TOML document.

    Parameters
    ----------
    document : mapping
        Sections of keys; a value is a text, or ``{one = ..., other = ...}``.
    where : str
        What errors call it.

    Raises
    ------
    UserError
        If a value is no text, or its braces are not closed.
    """
    found: dict[str, Template] = {}
    for section, keys in document.items():
        if not isinstance(keys, dict):
            raise UserError(f"{where}: {section} must stand in a section, as in [reasons]")
        for key, value in keys.items():
            name = f"{section}.{key}"
            forms = {"other": value} if isinstance(value, str) else value
            if (
                not isinstance(forms, dict)
                or not {"other"} <= set(forms) <= _FORMS
                or not all(isinstance(form, str) for form in forms.values())
            ):
                raise UserError(f"{where}: {name} must be a text, or {{one = ..., other = ...}}")
            found[name] = Template(**forms)
            for form in forms.values():
                placeholders(form, f"{where}: {name}")
    return found


def placeholders(text: str, where: str) -> frozenset[str]:
    """Return the names in the braces of a text.

    Raises
    ------
    UserError
        If a brace is not closed, or holds anything but a name.
    """
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise UserError(f"{where}: {error}; write {{{{ for a brace") from error
    for name in names:
        if not name.isidentifier():
            raise UserError(f"{where}: {{{name}}} is not the name of a part")
    return frozenset(names)


def check(templates: Mapping[str, Template], model: Mapping[str, Template], where: str) -> None:
    """Check that texts can stand for those of another language.

    Parameters
    ----------
    templates : mapping of str to Template
        Some texts.
    model : mapping of str to Template
        Those of English.
    where : str
        What errors call them.

    Raises
    ------
    UserError
        If a key is unknown, or a text has other parts; the form for one may leave out ``n``.
    """
    for name, template in templates.items():
        if name not in model:
            raise UserError(f"{where}: there is no text {name}; the names are those of English")
        wanted = placeholders(model[name].other, where)
        for form in filter(None, (template.other, template.one)):
            parts = placeholders(form, where)
            optional = {"n"} if form is template.one else set()
            missing, unknown = wanted - parts - optional, parts - wanted
            if missing or unknown:
                said = ", ".join(f"{{{one}}}" for one in sorted(missing or unknown))
                how = "lacks" if missing else "has an unknown part"
                raise UserError(f"{where}: {name} {how} {said}")


def read_library(folder: Path | None = None) -> Library:
    """Read the built-in texts, and those of a shop over them.

    Parameters
    ----------
    folder : Path or None
        The shop's, with files such as ``de.toml`` or ``fr-ca.toml``.

    Raises
    ------
    UserError
        If the folder or a file in it cannot be used; the message says why.
    """
    books = dict(_built_in())
    if folder is None:
        return Library(books)
    if not folder.is_dir():
        raise UserError(f"words_dir names {folder}, which is not a folder")
    for path in sorted(folder.glob("*.toml")):
        language = path.stem.lower().replace("_", "-")
        if not _LANGUAGE.fullmatch(language):
            raise UserError(f"{path} is not named like a language, as de.toml or fr-ca.toml are")
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        templates = parse(document, str(path))
        check(templates, books[DEFAULT], str(path))
        books[language] = {**books.get(language, {}), **templates}
    return Library(books)


@cache
def _built_in() -> dict[str, dict[str, Template]]:
    texts = files("recsvc.explaining") / "texts"
    return {
        language: parse(
            tomllib.loads((texts / f"{language}.toml").read_text(encoding="utf-8")), language
        )
        for language in BUILT_IN
    }


_spoken: list[Library] = []


def speak(library: Library) -> None:
    """Let this process use other texts from now on: once, when it starts."""
    _spoken[:] = [library]


def library() -> Library:
    """Return the texts that this process uses."""
    if not _spoken:
        _spoken.append(read_library())
    return _spoken[0]


def words(language: str | None = None) -> Words:
    """Return the texts of a language, or of what comes nearest to it."""
    return library().words(language)
