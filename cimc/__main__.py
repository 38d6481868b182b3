"""``python -m cimc``: the command, where its script is not on the path."""

from cimc.cli.main import main

main()
