"""Topic schemas: from a definition to columns, and from values to typed columns.

    compile   definition ─► shape ─► columns        documents (what may be given), jsonschema, avro, classes, shape
    change    the next version of a topic's schema  one operation, decided by the fold (`log.columns`)
    guard     a batch on its way in ─► typed.check  called by `log.guard`, for topics with a schema alone
    typed     values ─► check, columns              texts (JSON, msgspec), datums (Avro, fastavro), build (Arrow)
    rows      a program's rows and tables ─► values, and back

Nothing here is imported for topics without a schema, and pyarrow only where columns are made. A misfit is told with its
row, its field and what is wrong with it.
"""
