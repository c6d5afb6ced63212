"""Sleep: what a day taught is consolidated into adapters, by a child process, while the person is away.

Parent's side (imported by the server; never imports torch): `protocol`, `report`, `supervisor`, `scheduler`.
Child's side: `child` and everything that it imports.
"""
