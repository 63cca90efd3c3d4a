"""The three models through the conformance grid."""

from __future__ import annotations

import numpy as np
import pytest

import bayesrec as br
from bayesrec.testing import ModelConformance

ONE_NOISE = br.Gaussian(user_noise=False)
OTHERS = (br.Ordinal(), br.Bernoulli(), br.Poisson(), br.StudentT())  # in PMF by default, in the rest if slow ones run


class TestPMF(ModelConformance):
    model = br.models.PMF(rank=2)
    uses_source = False
    likelihoods = (*ModelConformance.likelihoods, br.Ordinal(), br.Poisson(), br.StudentT())
    slow = (br.Bernoulli(),)


class TestCollectiveMF(ModelConformance):
    model = br.models.CollectiveMF(rank=2)
    uses_source = True
    likelihoods = ()
    slow = (ONE_NOISE, *OTHERS)


class TestTransferMF(ModelConformance):
    model = br.models.TransferMF(rank=2)
    uses_source = True
    likelihoods = ()
    slow = (ONE_NOISE, *OTHERS)


@pytest.mark.slow
class TestTransferMFWithoutGate(ModelConformance):
    model = br.models.TransferMF(rank=1, gate=False)
    uses_source = True
    likelihoods = ()


@pytest.mark.parametrize("model", [br.models.PMF, br.models.CollectiveMF, br.models.TransferMF])
def test_ranks_and_sizes_of_numpy_become_plain(model):
    assert type(model(rank=np.int64(3)).rank) is int
    assert repr(model(rank=np.int64(3))) == repr(model(rank=3))
    method = br.Gibbs(draws=np.int64(3), warmup=np.int8(0), chains=np.int64(1), thin=np.uint8(2), threads=np.int32(1))
    assert repr(method) == repr(br.Gibbs(3, 0, 1, 2, 1))
