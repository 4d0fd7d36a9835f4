"""Immutable records that cost no more to make than mutable ones.

A frozen dataclass sets each field through ``object.__setattr__`` when it is made, which takes six
times as long as a plain one's; and some twenty of them are made for one answer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

__all__ = ["value_class"]

if TYPE_CHECKING:
    from dataclasses import dataclass as value_class
else:

    def value_class(*, frozen: bool, **options: Any) -> Callable[[type], type]:
        """Return `dataclass` with options; mypy holds everybody to `frozen`, the interpreter not.

        Parameters
        ----------
        frozen : bool
            Always true; stands at each use because there mypy reads the arguments of `dataclass`.
        **options
            Its other arguments.
        """
        assert frozen
        # What compares by value is hashable, as a frozen one is.
        return dataclass(unsafe_hash=options.get("eq", True), **options)
