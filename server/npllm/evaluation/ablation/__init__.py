"""The ablation: which mechanism gains what, over days of a project's history, on the code that serves and sleeps."""
