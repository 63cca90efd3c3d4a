"""The three models through the conformance suite."""

from __future__ import annotations

import bayesrec as br
from bayesrec.testing import ModelConformance


class TestPMF(ModelConformance):
    model = br.models.PMF(rank=2)
    uses_source = False


class TestCollectiveMF(ModelConformance):
    model = br.models.CollectiveMF(rank=2)
    uses_source = True


class TestTransferMF(ModelConformance):
    model = br.models.TransferMF(rank=2)
    uses_source = True


class TestTransferMFWithoutGate(ModelConformance):
    model = br.models.TransferMF(rank=1, gate=False)
    uses_source = True


class TestOneNoiseForAll(ModelConformance):
    model = br.models.TransferMF(rank=1, likelihood=br.Gaussian(user_noise=False))
    uses_source = True


class TestPMFOneNoiseForAll(ModelConformance):
    model = br.models.PMF(rank=1, likelihood=br.Gaussian(user_noise=False))
    uses_source = False
