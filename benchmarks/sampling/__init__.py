"""Sampling: completions a second and what they cost the client, against peers, one stand-in engine for all.

`make bench-sampling` makes a venv for each peer from the package index, measures the engine's own ceiling, then
Retort and the peers one after another, and keeps results/sampling.json. No model is behind the engine: it answers at
once, or after a latency that it is told, with texts of 20 KB.
"""
