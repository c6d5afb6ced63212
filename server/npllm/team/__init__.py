"""The team: one database for several persons, from its administrator's side."""
