"""`python -m pricer`: the same as the `pricer` command."""

from pricer.cli import main

main()
