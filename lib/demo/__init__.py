"""The demonstration: a year of real departures and weather through the log, and back, checked row by row."""
