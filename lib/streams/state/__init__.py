"""State of operators: rows by key, in columns, in memory and where it outgrows that on disk."""
