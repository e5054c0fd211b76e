"""The ``conchrec`` command, a module for each of its commands. Never imports ``conchrec.proxy``."""
