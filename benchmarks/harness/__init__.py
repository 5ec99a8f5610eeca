"""What the benchmarks share: processes, runs, measurements, tables."""
