"""The command face: ``conchrec …``. Never imports ``conchrec.proxy``."""
