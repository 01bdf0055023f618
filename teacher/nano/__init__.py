"""The bundled teacher: a small model of DeepSeek-V3's architecture, and what both bundled models are made with."""
