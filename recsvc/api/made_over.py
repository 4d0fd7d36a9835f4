"""What pages and placements share: documents of the site, made over those that are built in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from feature_store.documents import SiteDocuments, Write
from feature_store.errors import ConflictError, NotFoundError
from recsvc.api.http import field_errors
from recsvc.checks import BadValueError, FieldError, InvalidRequestError, check_name
from recsvc.merchandising.site import Site

ADDED = frozenset({"name", "built_in", "changed", "revision", "updated_at", "updated_by"})
"""What an answer adds to a body; whoever sends an answer back need not take it out."""

Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class MadeOver:
    """One kind of them.

    Parameters
    ----------
    kind : str
        As the site's documents name it.
    built_in : mapping
        Those that come with the service, by name.
    most : int
        So many documents of the kind a site may have.
    """

    kind: str
    built_in: Mapping[str, Any]
    most: int

    def missing(self, name: str) -> NotFoundError:
        """Return the error of whoever asks for one that there is not."""
        return NotFoundError(f"there is no {self.kind} {name!r}")

    def read(self, model: type[Body], value: object, name: str) -> Body:
        """Return a body that was sent.

        Raises
        ------
        InvalidRequestError
            If the name is none, or the body is not as it must be.
        """
        try:
            check_name(name)
        except BadValueError as error:
            raise InvalidRequestError(FieldError("#/name", error.detail)) from error
        if isinstance(value, dict):
            value = {key: part for key, part in value.items() if key not in ADDED}
        try:
            return model.model_validate(value)
        except ValidationError as error:
            raise InvalidRequestError(*field_errors(error)) from error

    def save(
        self, site: SiteDocuments, name: str, body: BaseModel, seen: int | None
    ) -> list[Write]:
        """Return what saves one, if there is room."""
        if site.get(self.kind, name) is None and len(site.of_kind(self.kind)) >= self.most:
            raise ConflictError(f"there are {self.most} {self.kind}s, and no room for more")
        return [Write(self.kind, name, body.model_dump(mode="json"), seen)]

    def remove(self, site: SiteDocuments, name: str, seen: int | None) -> list[Write]:
        """Return what removes one; of one that is as it came, nothing.

        Raises
        ------
        NotFoundError
            If there is none.
        """
        if site.get(self.kind, name) is not None:
            return [Write(self.kind, name, None, seen)]
        if name in self.built_in:
            return []
        raise self.missing(name)

    def shown(self, site: Site, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return one as the API shows it."""
        stored = site.documents.get(self.kind, name)
        return {
            **body,
            "name": name,
            "built_in": name in self.built_in,
            "changed": stored is not None,
            "revision": stored.revision if stored else 0,
            "updated_at": stored.updated_at if stored else None,
            "updated_by": stored.updated_by if stored else None,
        }
