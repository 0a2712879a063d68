"""Runners: a topology over a namespace, exactly once."""
