"""Archive files: Parquet with the columns of a record, and the typed ones of a topic with a schema."""
