"""``bayesrec recommend``: ranked lists for users."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayesrec.cli.options import Config, Json, grouped
from bayesrec.cli.shell import say
from bayesrec.errors import DataError

if TYPE_CHECKING:
    from bayesrec.posterior import Posterior

NEAREST_AMONG = 20_000  # ids; among more the search for the nearest takes too long


@grouped
def recommend(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder that fit wrote.")],
    users: Annotated[str | None, typer.Option(help="User ids, separated by commas.")] = None,
    users_file: Annotated[
        Path | None, typer.Option(help="Users: a .txt with one id a line, or a table with the model's user column.")
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="All users of the fit.")] = False,
    n: Annotated[int, typer.Option("-n", "--n", help="Length of a list.")] = 10,
    by: Annotated[
        str, typer.Option(help="mean, ucb, lcb, thompson, prob_best, expected_utility or mean_variance.")
    ] = "mean",
    exclude: Annotated[str, typer.Option(help="seen: what the user has rated in the target; or none.")] = "seen",
    level: Annotated[float, typer.Option(help="Probability of the interval from lower to upper.")] = 0.9,
    seed: Annotated[int, typer.Option(help="For thompson: equal seeds give equal lists.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Table to write; without it CSV goes to the standard output.")
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Rank the target's items for users, with intervals and source weights."""
    from bayesrec import ranking
    from bayesrec.cli.answers import check_out, heard, put
    from bayesrec.cli.build import load_model

    if sum((users is not None, users_file is not None, everyone)) != 1:
        raise DataError("name the users by one of --users, --users-file and --all")
    if exclude not in ("seen", "none"):
        raise DataError(f"--exclude must be seen or none, not {exclude!r}")
    check_out(out)
    with heard() as lines:
        posterior = load_model(model)
        ids = _ids(posterior, users, users_file)
        frame = ranking.recommend(
            posterior, ids, n=n, by=by, exclude=None if exclude == "none" else exclude, seed=seed, level=level
        )
    put(frame, out, json, {"model": str(model), "by": by, "n": n, "level": level}, lines)


def _ids(posterior: Posterior, users: str | None, users_file: Path | None) -> Any:
    """The ids asked for, in the type of the model's; those it does not know are named."""
    import pandas as pd

    from bayesrec.cli.answers import as_known
    from bayesrec.data.columns import nearest
    from bayesrec.ranking import sides
    from bayesrec.tables import Column, read_table

    names = posterior.data.columns
    column = next(iter(names.ids(names.user, names.item)))
    known, _, target = sides(posterior)
    home = known.ids if known.scopes is None else known.ids[known.scope_of() == target]
    if users is None and users_file is None:
        return home
    if users is not None:
        words = pd.Series([word.strip() for word in users.split(",") if word.strip()], dtype=object)
    elif users_file is not None and users_file.suffix.lower() == ".txt":
        words = pd.Series(_lines(users_file), dtype=object)
    else:
        words = read_table(str(users_file), [Column(column, "id", "users, as the model's table had them")])[column]
        words = words.drop_duplicates()
    ids = as_known(words, known)
    strangers = ids[~ids.isin(home) & ids.notna()]
    near = home if len(home) <= NEAREST_AMONG else ()
    for word in strangers.head(3):
        like = nearest(word, near) if isinstance(word, str) else ""
        say(f"note: user {word!r} was not in the fit{like}: ranked from the population")
    if len(strangers) > 3:
        say(f"note: so were {len(strangers) - 3} users more")
    return ids.to_numpy()


def _lines(path: Path) -> list[str]:
    try:
        words = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return [word for word in words if word]
