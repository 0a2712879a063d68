"""Benchmarks that anyone can run: ``headwater bench NAME --json``. Each says beside what it measured itself."""
