"""What nobody who reads or writes has a reason to do: archive, retain, compact, collect, branch.

Each chore may run in any number of processes at once, and may die between any two lines.
"""
