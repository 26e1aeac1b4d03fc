"""`python -m deploy.cli` is the `carina` command."""

from deploy.cli import main

main()
