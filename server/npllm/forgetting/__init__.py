"""`npllm memory`: forgetting on purpose, and what nothing is learned from."""
