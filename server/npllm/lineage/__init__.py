"""`npllm adapters`: which versions there are, what they learned, which one is in use; out to a file and in again."""
