"""One request's way: cache, context, retrieval, decoding, filters; and what became of the suggestion."""
