"""The function ``process``: runs a job of yours on what is there, and stops; see ``headwater.streams.function``."""

from headwater.streams.function import job

handler = job()
