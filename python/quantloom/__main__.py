"""`python -m quantloom` is the `quantloom` command."""

from quantloom.cli import main

main()
