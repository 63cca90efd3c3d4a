"""Models: PMF (no transfer), CollectiveMF (full pooling), TransferMF (a source-informed prior that can say no)."""

from bayesrec.models.collective import CollectiveMF
from bayesrec.models.pmf import PMF
from bayesrec.models.transfer import TransferMF

__all__ = ["PMF", "CollectiveMF", "TransferMF"]
