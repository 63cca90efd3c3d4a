"""What NUTS moves in: values without bounds, and what is normal given the rest in sds from its mean. Internal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import torch
from pyro.distributions.transforms import LowerCholeskyAffine
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import AffineTransform, Independent, MixtureSameFamily, MultivariateNormal, Normal, biject_to

from bayesrec.data import Interactions
from bayesrec.likelihoods import Latents
from bayesrec.models.base import Batch, Model, Schema

__all__ = ["Potential"]


class Potential:
    """Minus the log joint density of a model's latents, as a function of values ``z`` (Tensor by site) without bounds.

    What is normal in the prior given what comes before, ``x ~ N(loc, L L')``, is ``z`` with ``x = loc + L z``: where ratings say
    little and the spread of a population is open, ``x`` lives in a funnel and ``z`` does not (Papaspiliopoulos, Roberts and
    Sköld 2007, `papaspiliopoulos2007` in docs/references.bib). Of a mixture of normals ``loc`` and ``L`` are its first part's.
    """

    def __init__(self, model: Model, schema: Schema, data: Interactions):
        self.model, self.schema = model, schema
        order = np.lexsort((data.domain, data.item, data.user))  # sums do not depend on the order of a table's rows
        self.batch = Batch(*(torch.from_numpy(x[order]) for x in (data.user, data.item, data.domain)))
        self.value = torch.from_numpy(schema.standardise(data.value, data.domain)[order])
        exponents = model.exponents(schema.n_domains)
        self.power = None if exponents is None else torch.from_numpy(exponents)[self.batch.domain]

    def __call__(self, z: dict[str, Tensor]) -> Tensor:
        """Minus log density of prior, ratings and Jacobian."""
        model = self.model
        with pyro.validation_enabled(False):  # not a number is an answer here: the trajectory ends
            there = self._there(z)
            law = model.likelihood.distribution(model.score(there.latents, self.batch), there.latents, self.batch)
            ratings = law.log_prob(self.value)
        return -(there.log_density + (ratings if self.power is None else self.power * ratings).sum())

    def latents(self, z: dict[str, Tensor]) -> Latents:
        """The latents that ``z`` stands for."""
        return self._there(z).latents

    def values(self, latents: Latents) -> dict[str, Tensor]:
        """The ``z`` that stands for these latents."""
        back = _Back(latents)
        with back:
            self.model.prior(self.schema)
        return back.values

    def _there(self, z: dict[str, Tensor]) -> _There:
        there = _There(z)
        with there:
            self.model.prior(self.schema)
        return there


class _There(Messenger):
    """Runs a prior at values without bounds: the latents, and their log density with the Jacobian."""

    def __init__(self, values: dict[str, Tensor]):
        super().__init__()
        self.values, self.latents = values, Latents()
        self.log_density: Any = 0.0

    def _pyro_sample(self, msg: Any) -> None:
        name, z = msg["name"], self.values[msg["name"]]
        transform = _transform(msg["fn"])
        x = transform(z)
        density = msg["fn"].log_prob(x).sum() + _volume(transform, z, x)
        self.log_density = self.log_density + density
        self.latents[name] = msg["value"] = x
        msg["done"] = msg["stop"] = True


class _Back(Messenger):
    """Runs a prior at latents: their values without bounds."""

    def __init__(self, latents: Latents):
        super().__init__()
        self.latents = latents
        self.values: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        msg["value"] = self.latents[name]
        self.values[name] = _transform(msg["fn"]).inv(self.latents[name])
        msg["done"] = msg["stop"] = True


def _transform(fn: Any) -> Any:
    """From ``z`` to a site."""
    rows = fn
    while isinstance(rows, Independent):
        rows = rows.base_dist
    if isinstance(rows, Normal):
        return AffineTransform(rows.loc, rows.scale)
    if isinstance(rows, MultivariateNormal):
        return LowerCholeskyAffine(rows.loc, rows.scale_tril)
    if isinstance(rows, MixtureSameFamily) and isinstance(parts := rows.component_distribution, MultivariateNormal):
        return LowerCholeskyAffine(parts.loc[..., 0, :], parts.scale_tril[..., 0, :, :])
    return biject_to(fn.support)


def _volume(transform: Any, z: Tensor, x: Tensor) -> Tensor:
    """Log determinant of the Jacobian."""
    if isinstance(transform, LowerCholeskyAffine):  # Pyro's own takes no batch
        return transform.scale_tril.diagonal(dim1=-2, dim2=-1).log().expand(z.shape).sum()
    return transform.log_abs_det_jacobian(z, x).sum()
