"""Changing the base: which there are, what each is and needs, and what becomes of what was learned."""
