"""``python -m mimctr`` is the command ``mimctr``."""

from mimctr.cli import main

main()
