"""What makes recordings evidence: signatures, the ledger, and verification."""
