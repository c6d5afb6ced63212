"""The editor's edge: registers LSP features and translates between LSP and our types, nothing else."""
