"""Names of the columns of a table, and the checks on these names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from bayesrec.errors import DataError

#: Column names that answers (predictions, rankings, weights) add next to the ids.
ANSWER_COLUMNS = frozenset(
    ("mean", "sd", "lower", "upper", "rank", "score", "source", "population", "target", "source_weight", "n", "delta",
     "relevance", "reduction", "left")
)  # fmt: skip
#: Axes of every variable of ArviZ's trees, where ratings stand under the name of their column.
TREE_AXES = frozenset(("chain", "draw"))


@dataclass(frozen=True, slots=True)
class Columns:
    """The column of each role in the user's tables. Provisional.

    `domain`, `value` and `time` may be None: no such column. Without a value column every row counts 1.0. Where items
    are shared, models see users and items with their roles `swapped`: then `user` names the column of items.

    Examples
    --------
    >>> Columns(user="user", item="track", domain=None).present()
    {'user': 'user', 'item': 'track', 'value': 'rating'}
    """

    user: str = "user"
    item: str = "item"
    domain: str | None = "domain"
    value: str | None = "rating"
    time: str | None = None
    swapped: bool = False

    def __post_init__(self) -> None:
        for role in ("user", "item"):
            if getattr(self, role) is None:
                raise DataError(f"{role}=None: every table needs a column with the {role} ids")
        taken: dict[str, str] = {}
        for role, name in self.present().items():
            if not isinstance(name, str):
                raise DataError(f"{role}={name!r}: a column name must be a string; rename the column")
            if name in taken:
                raise DataError(f"column {name!r} is named for both {taken[name]} and {role}; use two columns")
            # without a domain column `relevance` says "domain"
            reserved = ANSWER_COLUMNS if self.domain is not None else ANSWER_COLUMNS | {"domain"}
            if name in reserved:
                raise DataError(
                    f"{role}={name!r}: answers have a column of that name, which would clash; rename the column "
                    f"(reserved: {', '.join(sorted(reserved))})"
                )
            if role == "value" and name in TREE_AXES:
                raise DataError(
                    f"value={name!r}: `to_datatree` and `sample_prior` have an axis of that name, which would clash; "
                    f"rename the column (reserved for values: {', '.join(sorted(TREE_AXES))})"
                )
            taken[name] = role

    def present(self) -> dict[str, str]:
        """Role to column name, for the roles that have a column."""
        roles = ("user", "item", "domain", "value", "time")
        return {role: getattr(self, role) for role in roles if getattr(self, role) is not None}

    @property
    def sides(self) -> tuple[str, str]:
        """What the caller calls the two roles: ("user", "item"), or ("item", "user") where they are swapped."""
        return ("item", "user") if self.swapped else ("user", "item")

    def transposed(self) -> Columns:
        """Return the columns with the roles of users and items swapped."""
        return replace(self, user=self.item, item=self.user, swapped=not self.swapped)

    def ids(self, user: Any, item: Any) -> dict[str, Any]:
        """Return the two columns of ids, given by role, in the order of the caller: users, then items."""
        pair = {self.user: user, self.item: item}
        return dict(reversed(pair.items())) if self.swapped else pair


def nearest(word: object, known: Iterable[object]) -> str:
    """Return " (did you mean 'x'?)" for the known word most like `word`, or an empty string."""
    by_text = {str(name).lower(): name for name in known}
    close = get_close_matches(str(word).lower(), by_text, n=1, cutoff=0.5)
    return f" (did you mean {by_text[close[0]]!r}?)" if close else ""


def require_columns(existing: Iterable[str], needed: dict[str, str], what: str = "the frame") -> None:
    """Raise a DataError for the first role of `needed` (role to name) whose column does not exist."""
    names = list(existing)
    for role, name in needed.items():
        if name not in names:
            free = [other for other in names if other not in needed.values()]
            hint = {
                "domain": "; for a table of the target only pass domain=None",
                "value": "; for clicks pass value=None",
            }
            raise DataError(
                f"{what} has no column {name!r} for {role}{nearest(name, free)}; it has {names}; "
                f"name the right one with {role}=...{hint.get(role, '')}"
            )
