"""What conchrec does, as files: transcripts of the wire, the audit and the manifests of scenarios that run
through the whole proxy in memory, and all messages that users meet.

``python -m pytest tests/golden --update-golden`` writes the files again.
"""
