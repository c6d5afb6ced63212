"""The hippocampus: what happened, kept in PostgreSQL, and found again when it is wanted."""
