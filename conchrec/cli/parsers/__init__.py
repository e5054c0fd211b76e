"""The command line: the parser of each command, without what the command needs when it runs.

These modules import nothing that takes long, so that ``--help`` and wrong arguments are answered at once.
"""
