"""The index of a project's code: chunks the size of a definition, found again by identifiers and by meaning.

`child` is the process that keeps it fresh (`watching`, `indexing`, `chunks`, `terms`); the server only asks (`search`,
`sparse`). `records` has what both say to PostgreSQL.
"""
