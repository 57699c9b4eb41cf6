"""``python -m compiler`` is ``compile-dataset``."""

from compiler.cli import main

main()
