"""The steps of a login that ask a person: passwords, second factors, approvals."""
