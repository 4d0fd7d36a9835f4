"""All rules and placements of a site as one file that people can review."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import tomli_w

from feature_store.conditions import ConditionError, Vocabulary
from feature_store.documents import SiteDocuments, Write
from feature_store.errors import ConflictError, UserError
from recsvc.checks import InvalidRequestError
from recsvc.merchandising.placement_documents import KIND as PLACEMENT
from recsvc.merchandising.placement_documents import PlacementBody
from recsvc.merchandising.publishing import LIVE_RULE, RULE
from recsvc.rules import parse_rule

FORMAT = 1
_SUFFIXES = (".toml", ".json")


@dataclass(frozen=True, slots=True)
class RuleFile:
    """What a file holds.

    Parameters
    ----------
    rules : mapping of str to dict
        Content of each rule, with the ``revision`` that was exported.
    placements : mapping of str to dict
        The same of placements.
    """

    rules: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    placements: Mapping[str, dict[str, Any]] = field(default_factory=dict)


def exported(site: SiteDocuments, *, live: bool) -> RuleFile:
    """Return the rules and placements of a site.

    Parameters
    ----------
    site : SiteDocuments
        The documents.
    live : bool
        Whether the rules in force are wanted, not what was written last.
    """
    rules: dict[str, dict[str, Any]] = {}
    for one in site.of_kind(LIVE_RULE if live else RULE):
        assert one.body is not None
        revision, body = one.revision, one.body
        if live:
            revision, body = body["revision"], body["rule"]
        rules[one.id] = {"revision": revision, **body}
    placements = {
        one.id: {"revision": one.revision, **(one.body or {})} for one in site.of_kind(PLACEMENT)
    }
    return RuleFile(rules, placements)


def write_file(path: Path, content: RuleFile) -> None:
    """Write a file; a null is left out, and means the same.

    Raises
    ------
    UserError
        If its name ends in neither ``.toml`` nor ``.json``.
    """
    document = _without_nulls(
        {"format": FORMAT, "rules": content.rules, "placements": content.placements}
    )
    if _suffix(path) == ".toml":
        path.write_text(tomli_w.dumps(document), encoding="utf-8")
    else:
        path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


def read_file(path: Path) -> RuleFile:
    """Read a file.

    Raises
    ------
    UserError
        If it cannot be read, or is none of ours.
    """
    suffix = _suffix(path)
    try:
        data = path.read_bytes()
        document = tomllib.loads(data.decode()) if suffix == ".toml" else orjson.loads(data)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, orjson.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(
            f"{path} is not a file of `recsvc rules export`: format = {FORMAT} is missing"
        )
    parts = [document.get(name, {}) for name in ("rules", "placements")]
    for name, part in zip(("rules", "placements"), parts, strict=True):
        if not isinstance(part, dict) or not all(isinstance(one, dict) for one in part.values()):
            raise UserError(f"{path}: {name!r} must be a table of tables")
    return RuleFile(*parts)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise UserError(f"{path} must end in .toml or .json")
    return suffix


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    return value


def planned(
    site: SiteDocuments, content: RuleFile, vocabulary: Vocabulary, *, force: bool
) -> list[Write]:
    """Plan the writes that make a site say what a file says.

    Parameters
    ----------
    site : SiteDocuments
        What is there.
    content : RuleFile
        What the file says.
    vocabulary : Vocabulary
        What conditions may name.
    force : bool
        Whether changes of others since the export may be overwritten.

    Raises
    ------
    UserError
        Naming every part of the file that is wrong.
    ConflictError
        If others changed something since the export.
    """
    wrong: list[str] = []
    bodies: list[tuple[str, str, dict[str, Any], Any]] = []
    for kind, part in ((RULE, content.rules), (PLACEMENT, content.placements)):
        for name, given in part.items():
            written = {key: value for key, value in given.items() if key != "revision"}
            try:
                body = _checked(kind, name, written, vocabulary)
            except InvalidRequestError as error:
                wrong += [f"{kind} {name}: {one.pointer}: {one.detail}" for one in error.errors]
            except (ConditionError, ValueError) as error:
                wrong.append(f"{kind} {name}: {error}")
            else:
                bodies.append((kind, name, body, given.get("revision")))
    if wrong:
        raise UserError("nothing was imported; " + "; ".join(wrong[:20]))
    return _changes(site, bodies, force=force)


def _checked(
    kind: str, name: str, written: dict[str, Any], vocabulary: Vocabulary
) -> dict[str, Any]:
    if kind == PLACEMENT:
        placement = PlacementBody.model_validate(written)
        placement.condition()
        return placement.model_dump(mode="json")
    rule = parse_rule({**written, "rule_id": name}, vocabulary).rule
    body = rule.model_dump(mode="json", exclude={"rule_id", "revision"})
    return {**body, "status": "draft"} if body["status"] == "live" else body


def _changes(
    site: SiteDocuments, bodies: Sequence[tuple[str, str, dict[str, Any], Any]], *, force: bool
) -> list[Write]:
    writes, conflicts = [], []
    for kind, name, body, revision in bodies:
        known = site.get(kind, name)
        if known is not None and known.body == body:
            continue
        if known is not None and revision != known.revision and not force:
            conflicts.append(f"{kind} {name} is at revision {known.revision}, not {revision}")
        writes.append(Write(kind, name, body))
    if conflicts:
        raise ConflictError(
            f"nothing was imported; changed since the export: {'; '.join(conflicts[:20])};"
            " export again, or overwrite with --force"
        )
    return writes
