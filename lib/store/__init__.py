"""Object stores: one protocol (see ``base``), and memory, a directory and S3 behind it."""
