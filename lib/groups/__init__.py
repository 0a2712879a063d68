"""Consumer groups with nothing running: leases in the bucket, and a coordinator that any process can be."""
