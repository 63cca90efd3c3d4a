"""One self-contained HTML page about a fit: ``br.report(posterior)``, and the pieces that pages are made of.

A package and a function of one name would hide one another, depending on which was imported first. So the package itself
can be called: ``bayesrec.report(...)`` is ``bayesrec.report.report(...)``.
"""

from __future__ import annotations

import inspect
import sys
from types import ModuleType

from bayesrec.report.build import report
from bayesrec.report.page import document, image, page, png, table, write

__all__ = ["document", "image", "page", "png", "report", "table", "write"]


class _Callable(ModuleType):
    __call__ = staticmethod(report)
    __signature__ = inspect.signature(report)  # or Python takes the first parameter for self


sys.modules[__name__].__class__ = _Callable
