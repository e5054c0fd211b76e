"""Who may: the role model, credentials, and the two certificate authorities."""
