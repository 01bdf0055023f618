"""What measures speed, memory and results; `make bench-NAME` runs benchmarks/NAME.py and keeps results/NAME.json."""
