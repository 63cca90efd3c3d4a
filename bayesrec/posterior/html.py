"""A posterior in a notebook: what was fitted and how, and how large each site is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesrec.data.html import html_table
from bayesrec.posterior.arviz import called

if TYPE_CHECKING:
    from bayesrec.posterior.posterior import Posterior


def posterior_html(posterior: Posterior) -> str:
    """Return two tables: the fit, and the sites with their axes and shapes, as the caller calls them. Internal."""
    data = posterior.data
    sizes = {called(posterior, "user"): data.n_users, called(posterior, "item"): data.n_items}
    facts = [
        ("method", repr(posterior.method)),
        ("draws", f"{posterior.n_chains} chains x {posterior.n_draws} draws"),
        ("target", data.target),
        ("sources", ", ".join(map(str, data.sources)) or "none"),
        ("users", f"{sizes['user']:,}"),
        ("items", f"{sizes['item']:,}"),
        ("ratings", f"{len(data):,}" if len(data) else "saved without them"),
        ("size", f"{sum(array.nbytes for array in posterior.draws.values()) / 2**20:,.1f} MiB"),
    ]
    sites = []
    for name, array in posterior.draws.items():
        axes = ", ".join(called(posterior, axis) for axis in posterior.model.dims[name])
        sites.append((name, axes or "a number", " x ".join(map(str, array.shape[2:])) or "1"))
    fit = html_table(("Posterior", repr(posterior.model)), facts)
    return fit + html_table(("site", "axes", "shape"), sites, "Shapes of one draw")
