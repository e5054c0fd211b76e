"""Recordings as evidence: the ledger, the completion of recordings, and verification."""
