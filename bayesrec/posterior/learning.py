"""What a posterior can learn without refitting: the methods of Posterior that give another posterior. Internal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from bayesrec.posterior import fold, point, widened

if TYPE_CHECKING:
    from bayesrec.posterior.posterior import Posterior

__all__ = ["Learning"]


class Learning:
    """Taking in new users, new items and new ratings."""

    def fold_in(
        self,
        frame: Any,
        seed: int = 0,
        features: Any = None,
        *,
        side: str | None = None,
        item_features: Any = None,
        alone: bool = False,
        power: float = 1.0,
    ) -> Posterior:
        """Take in users or items who were not in the fit, without refitting.

        A cut posterior: hyperparameters and the other side stay as they are in each draw, and the latents of the new are drawn
        given them and the rows. With one noise for all users each draw is exact; with a level a user, and for items with latent
        responses (levels, counts), a short Gibbs chain.

        Parameters
        ----------
        frame : DataFrame
            Rows of new users, in any fitted domain, such as the sources'. Those of unknown items are left out with a warning;
            with ``side="item"`` rows of new items, those by unknown users left out. None where the features say it all.
        seed : int
        features : DataFrame, optional
            Features of the new users, as ``user_features``; needed where the fit used such features.
        side : {"user", "item", "both"}, optional
            Who is new; by default users, or items where items are shared. "both": items first, from known users, then users.
        item_features : DataFrame, optional
            Features of the new items. All items named here are taken in, those without a row from their features alone.
        alone : bool
            True leaves the fit's users and their rows out of the answer, for services; it cannot be saved.
        power : float
            In (0, 1]: power of the likelihood of the new cells, for ``Gaussian`` and ``Implicit`` (Bissiri, Holmes and Walker
            2016, Gruenwald and van Ommen 2017). Below 1 it hedges: cells may depend on each other beyond the factors.

        Returns
        -------
        Posterior
            Knows the old users and items and the new ones.

        Raises
        ------
        DataError
            A user or an item who is known already; the message names the id. A power that the likelihood cannot have.
        """
        posterior = cast("Posterior", self)
        posterior.require_draws("fold_in")
        return fold.fold_in(posterior, frame, seed, side, (features, item_features), alone, power)

    def update(self, frame: Any, seed: int = 0, features: Any = None) -> Posterior:
        """Learn from new ratings of known and of new users, without refitting: streaming Bayes. Provisional.

        New users are taken in as by :meth:`fold_in`. Known users are drawn anew given all their rows, those of the fit and
        the new ones. Items and hyperparameters stay as they are in each draw, a cut posterior: refit now and then.

        Parameters
        ----------
        frame : DataFrame
            Rows in any fitted domain. A pair of user and item that was rated before has the new rating from now on. Rows
            of unknown items are left out with a warning.
        seed : int
        features : DataFrame, optional
            Features of the new users, as for :meth:`fold_in`.

        Returns
        -------
        Posterior
            With the new rows in ``data``.

        Raises
        ------
        DataError
            An empty frame, a missing column, a domain that was not fitted.
        NotFittedError
            Known users of a posterior that was saved without its ratings.

        Examples
        --------
        >>> import bayesrec as br
        >>> import pandas as pd
        >>> frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(10, 10), n_ratings=(6, 4))
        >>> data = br.Interactions.from_frame(frame, target="target", value="value")
        >>> posterior = br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=20, warmup=10, chains=1), progress=False)
        >>> rows = pd.DataFrame({"user": [0, 0, 77], "item": [0, 1, 2], "value": [1.0, 2.0, 1.5]})
        >>> more = posterior.update(rows)
        >>> more.data.n_users - posterior.data.n_users
        1
        """
        posterior = cast("Posterior", self)
        posterior.require_draws("update")
        return fold.update(posterior, frame, seed, features)

    def point(self, draws: int = 1) -> Posterior:
        """Posterior means in the place of draws, for serving many users fast. Provisional.

        Factors rotate from draw to draw, so each draw is brought to one orientation and scale before the mean is taken, users and
        hyperparameters with the items. What is lost: the uncertainty of users and items, so ``sd`` and intervals are those of the
        noise alone and rules that explore have nothing to go by; and a part of the mean itself, the covariance of a user's and an
        item's vector over the draws.

        Parameters
        ----------
        draws : int
            How often the means are repeated. Somebody folded in has so many draws of their vector, given the mean items: with
            one, a single random one.

        Returns
        -------
        Posterior
            One chain, with the same data.

        Raises
        ------
        DataError
            A number of draws that is none.
        UnsupportedMethodError
            A model with several vectors a user (TransferMF).
        NotFittedError
            Draws of a site that were not kept.

        Examples
        --------
        >>> import bayesrec as br
        >>> frame, _ = br.data.synthetic.cross_domain(n_users=20, n_items=(10, 10), n_ratings=(6, 4))
        >>> data = br.Interactions.from_frame(frame, target="target", value="value")
        >>> posterior = br.fit(br.models.PMF(rank=1), data, br.Gibbs(draws=20, warmup=10, chains=2), progress=False)
        >>> posterior.point().draws["user_vector"].shape
        (1, 1, 20, 2)
        """
        return point.point(cast("Posterior", self), draws)

    def widened(self, factor: float) -> Posterior:
        """Draws of users and items stretched about the means of their chain, for variational fits. Provisional.

        ``SVI`` and ``VMP`` are too sure of what they expect. ``br.compare_spread`` measures by how much, on a part of the
        users; one over the ratio that it finds is about the factor that gives expected ratings Gibbs's spread there (a little
        much: the product of two vectors widens more than either). Predictive means move little, intervals and the rules that
        explore widen.

        Parameters
        ----------
        factor : float
            What deviations from the means are multiplied by.

        Returns
        -------
        Posterior
            With the same chains and draws, whose ``stats`` are gone.

        Raises
        ------
        DataError
            A factor that is none.
        UnsupportedMethodError
            Draws of another method.

        Examples
        --------
        >>> import bayesrec as br
        >>> frame, _ = br.data.synthetic.cross_domain(n_users=30, n_items=(12, 12), n_ratings=(8, 8))
        >>> data = br.Interactions.from_frame(frame, target="target", value="value")
        >>> posterior = br.fit(br.models.PMF(rank=1), data, br.VMP(draws=20, chains=1, tolerance=0.01), progress=False)
        >>> rows, wide = frame[frame.domain == "target"].head(3), posterior.widened(1.5)
        >>> bool((wide.predict(rows)["sd"] > posterior.predict(rows)["sd"]).all())
        True
        """
        return widened.widened(cast("Posterior", self), factor)
