"""The web console: server-rendered pages over the verbs of ``headwater.api``, which decide who may see and do what.

    request ──► app: a cookie becomes a bearer token ──► pages / actions ──► views (pure) ──► render ──► HTML

Every page is one look at the state of the fold; nothing is kept between requests but the summaries of commits, which
never change. So it runs in ``headwater dev``, as ``headwater console``, and as a function.
"""
