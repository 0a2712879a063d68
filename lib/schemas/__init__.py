"""Topic schemas: from a definition to columns, and from values to typed columns."""
