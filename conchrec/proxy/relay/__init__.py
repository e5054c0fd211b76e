"""Channels between the user and the target: parsed, admitted, observed, forwarded."""
