"""``python -m simtrain.cli``, where the command is not on the path."""

from simtrain.cli.command import main

main()
