"""`python -m quantloom.cli` is the `quantloom` command."""

from quantloom.cli import main

main()
