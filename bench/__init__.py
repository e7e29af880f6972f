"""What is fast, measured: micro-benchmarks for pytest, and `python -m bench` beside a C floor."""
