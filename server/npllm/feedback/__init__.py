"""Reading the person: what edits, emoji and comments say about a suggestion. Pure: no I/O, no clock of its own."""
