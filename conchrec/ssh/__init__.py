"""The SSH protocols, as the RFCs and OpenSSH's PROTOCOL files define them.

This package has no access policy and does not know recordings.
"""
