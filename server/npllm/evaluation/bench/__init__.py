"""`npllm bench`: how long memory takes, and what it misses, at sizes that a person reaches in years."""
