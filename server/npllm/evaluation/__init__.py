"""How much learning gains, measured through the real server on real code: history replay and the demo."""
