"""The SSH protocols as the RFCs and OpenSSH's PROTOCOL files define them. This package knows neither access
policy nor recording.
"""
