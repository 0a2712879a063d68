"""Replay straight from object storage with Arrow: any range of any topic, without a Headwater process."""
