"""Benchmarks: ``python -m benchmarks`` measures throughput, latency, start and restart on Kafka."""
