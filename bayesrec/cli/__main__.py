"""``python -m bayesrec.cli``."""

from bayesrec.cli import main

main()
