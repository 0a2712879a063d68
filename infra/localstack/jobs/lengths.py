"""The job of stream processing that the end-to-end test deploys: how many events there are of each length of text."""

from polars import String, col

from headwater.streams import Topology, agg


def lengths() -> Topology:
    """From ``events`` to ``lengths``, by way of a repartition topic and of state."""
    made = Topology("lengths")
    texts = made.stream("events", schema={"text": String()}).filter(col("text").is_not_null())
    counted = texts.select(length=col("text").str.len_chars()).group_by("length").aggregate(events=agg.count())
    counted.to("lengths")
    return made
