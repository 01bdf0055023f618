"""Asking: problem sources, prompts, engines and the sampling of traces."""
