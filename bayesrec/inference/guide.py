"""What SVI fits: a normal for the hyperparameters, and for each user a joint normal over all that is theirs. Internal."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Independent, biject_to
from torch.distributions.transforms import IndependentTransform

from bayesrec.likelihoods import Latents
from bayesrec.models.base import Model, Schema

__all__ = ["Guide", "Prior"]

START_SD = 0.1


class Prior(Messenger):
    """Runs a model's prior at given latents and adds up its log density, member by member, without the leaves.

    Parameters
    ----------
    latents : dict of Tensor
        A value for every site.
    leaves : dict of Tensor
        Masks over leading axes of a site; what is masked is no part of ``log_density``.
    draw : bool
        Replace the masked values by draws from the prior given the sites before.
    """

    def __init__(self, latents: Latents, leaves: dict[str, Tensor], draw: bool = False):
        super().__init__()
        self.latents, self.leaves, self.draw = dict(latents), leaves, draw
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
        if mask is None or not mask.all():
            self.log_density = self.log_density + _without(members.log_prob(value), mask).sum()


class Guide:
    """A Gaussian approximation on the unconstrained scale.

    Hyperparameters are independent normals. Everything that belongs to one user (vectors in all domains, noise levels)
    is one normal with a full covariance, so that what a source vector says of the target vector is not lost.

    Parameters
    ----------
    model, schema
    start : dict of ndarray
        A value for every site, the centre of the guide before the first step.
    leaves : dict of ndarray of bool
        Of ``Model.leaves``; a site that is masked throughout has no parameters.
    """

    def __init__(self, model: Model, schema: Schema, start: dict[str, np.ndarray], leaves: dict[str, np.ndarray]):
        self.model, self.schema = model, schema
        self.leaves = {name: torch.from_numpy(np.ascontiguousarray(mask)) for name, mask in leaves.items()}
        self.start = {
            name: torch.as_tensor(np.asarray(start[name]), dtype=torch.get_default_dtype()) for name in model.dims
        }
        supports = Prior(self.start, self.leaves).run(model, schema).supports
        self.members = [name for name, axes in model.dims.items() if "user" in axes]
        self.alone = [
            name for name in model.dims if name not in self.members and not (name in leaves and leaves[name].all())
        ]
        self.transforms = {name: _transform(supports[name]) for name in self.alone}
        self.loc = {name: self.transforms[name].inv(self.start[name]).clone() for name in self.alone}
        self.log_sd = {name: torch.full_like(x, float(np.log(START_SD))) for name, x in self.loc.items()}
        self.parameters: list[Tensor] = [*self.loc.values(), *self.log_sd.values()]
        if self.members:
            self.user_loc = self._by_user(self.start).clone()
            masks = {
                name: _wide(self.leaves[name], self.start[name]).expand_as(self.start[name])
                if name in self.leaves
                else torch.zeros_like(self.start[name], dtype=torch.bool)
                for name in self.members
            }
            self.free = (~self._by_user(masks)).to(self.user_loc.dtype)
            size = self.user_loc.shape[1]
            self.user_log_sd = torch.full_like(self.user_loc, float(np.log(START_SD)))
            self.user_below = torch.zeros(len(self.user_loc), size, size)
            self.lower = torch.ones(size, size).tril(-1)
            self.parameters += [self.user_loc, self.user_log_sd, self.user_below]
        for x in self.parameters:
            x.requires_grad_()

    def sample(self) -> tuple[Latents, Any]:
        """One reparametrised draw on the models' own scale, and its log volume: entropy plus log Jacobian."""
        out, volume = dict(self.start), torch.zeros(())
        for name in self.alone:
            x = self.loc[name] + self.log_sd[name].exp() * torch.randn_like(self.loc[name])
            out[name] = self.transforms[name](x)
            jacobian = self.transforms[name].log_abs_det_jacobian(x, out[name])
            mask = self.leaves.get(name)
            volume = volume + _without(jacobian, mask).sum() + _without(self.log_sd[name], mask).sum()
        if self.members:
            noise = torch.randn_like(self.user_loc) * self.free
            x = self.user_loc + self.user_log_sd.exp() * (
                noise + ((self.user_below * self.lower) @ noise.unsqueeze(-1)).squeeze(-1) * self.free
            )
            out |= self._from_user(x)
            volume = volume + (self.user_log_sd * self.free).sum()
        return out, volume

    def _by_user(self, latents: Latents) -> Tensor:
        """Sites with a user axis as one row a user, (user, component)."""
        rows = []
        for name in self.members:
            axis = self.model.dims[name].index("user")
            rows.append(
                latents[name].movedim(axis, 0).flatten(1) if latents[name].dim() > 1 else latents[name][:, None]
            )
        return torch.cat(rows, 1)

    def _from_user(self, rows: Tensor) -> Latents:
        out, first = {}, 0
        for name in self.members:
            axis = self.model.dims[name].index("user")
            shape = self.start[name].movedim(axis, 0).shape
            size = int(np.prod(shape[1:]))
            out[name] = rows[:, first : first + size].reshape(shape).movedim(0, axis)
            first += size
        return out


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
    return value if mask is None else torch.where(_wide(mask, value), torch.zeros((), dtype=value.dtype), value)
