"""``headwater top``: what flows, who lags and what is stuck, in a terminal, from one fold of the log."""

from headwater.top.view import GroupRow, Overview, Sample, TopicRow, View, sample, view_of

__all__ = ["GroupRow", "Overview", "Sample", "TopicRow", "View", "sample", "view_of"]
