"""The base model and all that stands around it: prompts, key-value cache, decoding, stops, adapters.

Knows nothing of the editor, of memory or of feedback. Everything here runs in one thread (the engine's) or
in the child process that sleeps. No parameter that serving touches ever has `requires_grad`.
"""
