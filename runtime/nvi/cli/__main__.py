"""`python -m nvi.cli` is `nvi`."""

from . import main

main()
