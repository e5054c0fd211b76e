"""The plugin for ``twistd conchrec``."""

from twisted.application.service import ServiceMaker

conchrec = ServiceMaker(
    "conchrec", "conchrec.tap", "An SSH proxy that records sessions.", "conchrec"
)
