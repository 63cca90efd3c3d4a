"""One self-contained HTML page about a fit, and the pieces that pages are made of.

Not named ``report``: that is the function ``br.report``, and a sub-module of one name would hide it.
"""

from bayesrec.reports.build import report
from bayesrec.reports.page import document, image, page, png, table, write

__all__ = ["document", "image", "page", "png", "report", "table", "write"]
