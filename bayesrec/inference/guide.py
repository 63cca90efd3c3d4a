"""What SVI fits: normals for the hyperparameters, and for each member one normal over all that is theirs. Internal."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Independent, biject_to
from torch.distributions.transforms import IndependentTransform

from bayesrec.likelihoods import Latents
from bayesrec.models.base import Model, Schema

__all__ = ["Guide", "Members", "Prior", "Taken", "normals"]

START_SD = 0.1
ENTROPY = 0.5 * (1.0 + math.log(2.0 * math.pi))  # of a standard normal

Dims = dict[str, tuple[str, ...]]


def normals(like: Tensor) -> Tensor:
    """Standard normals of a tensor's shape, type and device; drawn on the CPU, so that a seed means the same everywhere."""
    return torch.randn(like.shape, dtype=like.dtype, device="cpu").to(like.device)


class Prior(Messenger):
    """Runs a model's prior at given latents and adds up its log density, member by member, without the leaves.

    Parameters
    ----------
    latents : dict of Tensor
        A value for every site.
    leaves : dict of Tensor
        Masks over leading axes of a site; what is masked is no part of ``log_density``.
    weights : dict of Tensor, optional
        For an axis, "user" or "item", what the log density of each of its entries counts.
    dims : dict of tuple, optional
        Axes of the sites; needed with ``weights``.
    draw : bool
        Replace the masked values by draws from the prior given the sites before.
    silent : collection of str
        Sites that are masked throughout: their density is not even computed.
    """

    def __init__(
        self,
        latents: Latents,
        leaves: dict[str, Tensor],
        weights: dict[str, Tensor] | None = None,
        dims: Dims | None = None,
        draw: bool = False,
        silent: Collection[str] = (),
    ):
        super().__init__()
        self.latents, self.leaves, self.draw, self.silent = dict(latents), leaves, draw, silent
        self.weights, self.dims = weights or {}, dims or {}
        self.log_density: Any = 0.0
        self.supports: dict[str, Any] = {}

    def run(self, model: Model, schema: Schema) -> Prior:
        """Go through ``model.prior``."""
        with self:
            model.prior(schema)
        return self

    def _pyro_sample(self, msg: Any) -> None:
        name, fn = msg["name"], msg["fn"]
        self.supports[name] = fn.support
        members = fn
        while isinstance(members, Independent):
            members = members.base_dist
        mask = self.leaves.get(name)
        if mask is not None and self.draw:
            value = self.latents[name]
            self.latents[name] = torch.where(_wide(mask, value), members.sample(), value)
        value = msg["value"] = self.latents[name]
        msg["done"] = msg["stop"] = True
        if name not in self.silent:
            part = _without(members.log_prob(value), mask)
            for axis, weight in self.weights.items():
                if axis in self.dims.get(name, ()):
                    place = self.dims[name].index(axis)
                    part = part * weight.reshape((-1,) + (1,) * (part.dim() - place - 1))
            self.log_density = self.log_density + part.sum()


@dataclass(frozen=True)
class Taken:
    """What one step looks at: codes of users and items, None for all, and their parameters, with gradients."""

    rows: dict[str, Tensor | None]
    tensors: dict[str, list[Tensor]]

    def of(self, site: Tensor, axes: tuple[str, ...]) -> Tensor:
        """The part of a site, or of its mask, that belongs to them."""
        for axis, rows in self.rows.items():
            if axis in axes and rows is not None:
                site = site.index_select(axes.index(axis), rows)
        return site


class Members:
    """The members of one axis, users or items: one normal a member over all sites with that axis.

    Parameters
    ----------
    axis : str
        "user" or "item".
    dims : dict
        Axes of the model's sites.
    start : dict of Tensor
    leaves : dict of Tensor
    whole : bool
        Whether the normals have full covariances; independent components otherwise.
    """

    def __init__(self, axis: str, dims: Dims, start: Latents, leaves: dict[str, Tensor], whole: bool):
        self.axis, self.dims, self.whole = axis, dims, whole
        self.names = [name for name, axes in dims.items() if axis in axes]
        self.shapes = {name: start[name].movedim(dims[name].index(axis), 0).shape[1:] for name in self.names}
        loc = self._as_rows(start)
        masks = {
            name: _wide(leaves[name], start[name]).expand_as(start[name])
            if name in leaves
            else torch.zeros_like(start[name], dtype=torch.bool)
            for name in self.names
        }
        self.free = ~self._as_rows(masks)
        size = loc.shape[1]
        row, column = torch.tril_indices(size, size, -1)
        self.flat = row * size + column
        n_below = len(self.flat) if whole else 0
        #: what a step learns of all members together
        self.parameters: list[Tensor] = []
        #: whose means an encoder reads
        self.items: Members | None = None
        #: means, log sds, and what is below the diagonal of a unit lower triangle
        self.tables: list[Tensor] = [
            loc.clone(),
            torch.full_like(loc, math.log(START_SD)),
            torch.zeros(len(loc), n_below, dtype=loc.dtype),
        ]

    def on(self, device: str) -> Members:
        """A copy whose tensors lie on a device."""
        out = copy.copy(self)
        out.free, out.flat = self.free.to(device), self.flat.to(device)
        out.tables = [x.to(device) for x in self.tables]
        out.parameters = [x.detach().to(device).requires_grad_() for x in self.parameters]
        return out

    def take(self, rows: Tensor | None) -> list[Tensor]:
        """The parameters of some members, or of all."""
        some = [x.detach() if rows is None else x.index_select(0, rows) for x in self.tables]
        return [x.requires_grad_() for x in some]

    def sample(self, rows: Tensor | None, tensors: list[Tensor], noise: Tensor | None = None) -> tuple[Latents, Tensor]:
        """One draw of the members' sites, and the entropy of each member's normal, (member,)."""
        loc, log_sd, below = tensors
        free = (self.free if rows is None else self.free.index_select(0, rows)).to(loc.dtype)
        noise = (normals(loc) if noise is None else noise) * free
        if self.whole:
            size = loc.shape[1]
            strict = loc.new_zeros(len(loc), size * size).index_copy(1, self.flat, below)
            strict = strict.reshape(-1, size, size)
            noise = noise + (strict @ noise.unsqueeze(-1)).squeeze(-1) * free
        return self._as_sites(loc + log_sd.exp() * noise), ((log_sd + ENTROPY) * free).sum(1)

    def _as_rows(self, latents: Latents) -> Tensor:
        """Sites as one row a member, (member, component)."""
        rows = [latents[name].movedim(self.dims[name].index(self.axis), 0) for name in self.names]
        return torch.cat([x.reshape(len(x), -1) for x in rows], 1)

    def _as_sites(self, rows: Tensor) -> Latents:
        out, first = {}, 0
        for name, shape in self.shapes.items():
            size = int(np.prod(shape))
            site = rows[:, first : first + size].reshape(len(rows), *shape)
            out[name] = site.movedim(0, self.dims[name].index(self.axis))
            first += size
        return out


class Guide:
    """A Gaussian approximation on the unconstrained scale: hyperparameters independent, members one by one.

    Parameters
    ----------
    model, schema
    start : dict of ndarray
        A value for every site, the centre of the guide before the first step.
    leaves : dict of ndarray of bool
        Of ``Model.leaves``; a site that is masked throughout has no parameters.
    whole : bool
        Full covariances for members.
    factors : int
        Directions along which hyperparameters vary together.
    """

    def __init__(
        self,
        model: Model,
        schema: Schema,
        start: dict[str, np.ndarray],
        leaves: dict[str, np.ndarray],
        whole: bool = True,
        factors: int = 0,
    ):
        self.leaves = {name: torch.from_numpy(np.array(mask)) for name, mask in leaves.items()}
        self.start = {
            name: torch.as_tensor(np.asarray(start[name]), dtype=torch.get_default_dtype()) for name in model.dims
        }
        supports = Prior(self.start, self.leaves).run(model, schema).supports
        self.dims = dims = model.dims
        self.silent = [name for name in dims if name in leaves and leaves[name].all()]
        self.own = own = {name: axes for name, axes in dims.items() if name not in self.silent}
        self.members = {
            axis: Members(axis, own, self.start, self.leaves, whole)
            for axis in ("user", "item")
            if any(axis in axes for axes in own.values())
        }
        self.alone = [name for name, axes in own.items() if not {"user", "item"} & set(axes)]
        self.transforms = {name: _transform(supports[name]) for name in self.alone}
        self.loc = {name: self.transforms[name].inv(self.start[name]).clone() for name in self.alone}
        self.log_sd = {name: torch.full_like(x, math.log(START_SD)) for name, x in self.loc.items()}
        free = [_wide(~self.leaves[n], x).expand_as(x) if n in self.leaves else x == x for n, x in self.loc.items()]
        self._free = torch.cat([x.reshape(-1) for x in free]) if free else torch.zeros(0, dtype=torch.bool)
        self.factor = torch.zeros(len(self._free), min(factors, len(self._free)))
        for x in self.parameters:
            x.requires_grad_()

    @property
    def parameters(self) -> list[Tensor]:
        """What a step learns beside the tables of members."""
        out = [*self.loc.values(), *self.log_sd.values(), *([self.factor] if self.factor.numel() else [])]
        return out + [x for members in self.members.values() for x in members.parameters]

    def encode(self, members: Members) -> None:
        """Take other members of an axis, with all that they have to learn."""
        self.members[members.axis] = members
        for x in members.parameters:
            x.requires_grad_()

    def on(self, device: str) -> Guide:
        """A copy whose tensors lie on a device."""
        out = copy.copy(self)
        out.leaves, out.start = ({n: x.to(device) for n, x in of.items()} for of in (self.leaves, self.start))
        out.loc, out.log_sd = (
            {n: x.detach().to(device).requires_grad_() for n, x in of.items()} for of in (self.loc, self.log_sd)
        )
        out._free, out.factor = self._free.to(device), self.factor.detach().to(device).requires_grad_()
        out.members = {axis: members.on(device) for axis, members in self.members.items()}
        for members in out.members.values():
            if members.items is not None:
                members.items = out.members["item"]
        return out

    def take(self, rows: dict[str, Tensor | None] | None = None) -> Taken:
        """The parameters of some users and items."""
        rows = rows or {}
        return Taken(rows, {axis: members.take(rows.get(axis)) for axis, members in self.members.items()})

    def sample(
        self, taken: Taken, weights: dict[str, Tensor] | None = None, noise: dict[str, Tensor] | None = None
    ) -> tuple[Latents, Any]:
        """One reparametrised draw on the models' own scale, of those taken, and its log volume: entropy plus log Jacobian.

        Parameters
        ----------
        taken : Taken
        weights : dict of Tensor, optional
            What the entropy of each member taken counts.
        noise : dict of Tensor, optional
            Standard normals to use: of the sites of hyperparameters, and of the axes of members.
        """
        out = {name: taken.of(self.start[name], self.dims[name]) for name in self.silent}
        volume, together = self._together(noise)
        noise = noise or {}
        for name in self.alone:
            z = noise[name] if name in noise else normals(self.loc[name])
            x = self.loc[name] + self.log_sd[name].exp() * (z + together.get(name, 0.0))
            out[name] = self.transforms[name](x)
            jacobian = self.transforms[name].log_abs_det_jacobian(x, out[name])
            mask = self.leaves.get(name)
            volume = volume + _without(jacobian, mask).sum() + _without(self.log_sd[name] + ENTROPY, mask).sum()
        for axis, members in self.members.items():
            sites, entropy = members.sample(taken.rows.get(axis), taken.tensors[axis], noise.get(axis))
            out |= sites
            volume = volume + (entropy * weights[axis] if weights and axis in weights else entropy).sum()
        return out, volume

    def _together(self, noise: dict[str, Tensor] | None) -> tuple[Any, dict[str, Tensor]]:
        """How far hyperparameters move along the common directions, by site, in their sds; and what that adds to the entropy."""
        if not self.factor.numel():
            return self.factor.new_zeros(()), {}
        factor = self.factor * self._free.to(self.factor.dtype).unsqueeze(1)
        z = noise["factor"] if noise and "factor" in noise else normals(self.factor[0])
        sizes = [self.loc[name].numel() for name in self.alone]
        parts = zip(self.alone, (factor @ z).split(sizes), strict=True)
        return 0.5 * torch.logdet(_capacity(factor)), {name: x.reshape(self.loc[name].shape) for name, x in parts}

    def _quadratic(self, noise: dict[str, Tensor]) -> float:
        """Squared length (Mahalanobis) of hyperparameters drawn with this noise, less its mean."""
        z = torch.cat([noise[name].reshape(-1) for name in self.alone]) * self._free
        if self.factor.numel():
            factor = self.factor * self._free.to(self.factor.dtype).unsqueeze(1)
            moved = z + factor @ noise["factor"]
            inner = factor.mT @ moved
            length = moved.square().sum() - inner @ torch.linalg.solve(_capacity(factor), inner)
        else:
            length = z.square().sum()
        return float(length - self._free.sum())

    def noise(self, taken: Taken) -> tuple[dict[str, Tensor], float]:
        """Standard normals for a draw, and by how much minus their log density exceeds its mean, the entropy."""
        out = {name: normals(self.loc[name]) for name in self.alone}
        if self.factor.numel():
            out["factor"] = normals(self.factor[0])
        excess = 0.5 * self._quadratic(out) if self.alone else 0.0
        for axis, members in self.members.items():
            z = out[axis] = normals(taken.tensors[axis][0])
            rows = taken.rows.get(axis)
            free = members.free if rows is None else members.free.index_select(0, rows)
            excess += float((0.5 * (z.square() - 1.0) * free).sum())
        return out, excess

    def masks(self, taken: Taken) -> dict[str, Tensor]:
        """The leaves among those taken."""
        return {name: taken.of(mask, self.dims[name]) for name, mask in self.leaves.items()}


def _capacity(factor: Tensor) -> Tensor:
    """I + F' F, whose determinant is that of I + F F'."""
    return torch.eye(factor.shape[1], dtype=factor.dtype, device=factor.device) + factor.mT @ factor


def _transform(support: Any) -> Any:
    """From unconstrained values to the support, elementwise where it can be."""
    transform = biject_to(support)
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    return transform


def _wide(mask: Tensor, value: Tensor) -> Tensor:
    return mask.reshape(mask.shape + (1,) * (value.dim() - mask.dim()))


def _without(value: Tensor, mask: Tensor | None) -> Tensor:
    """The value, zero where masked."""
    return value if mask is None else torch.where(_wide(mask, value), value.new_zeros(()), value)
