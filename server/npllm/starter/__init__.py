"""The starter model that ships with npllm, and the recipe that builds it."""
