"""Headwater: an event-streaming log whose only state is a bucket."""
