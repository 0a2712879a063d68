"""The verbs of the service, typed, and their doors: function URLs, a local server. No rule of the log lives here."""
