"""The bundled student base: a small dense model of Qwen2's architecture."""
