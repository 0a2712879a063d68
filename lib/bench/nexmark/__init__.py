"""Nexmark: an online auction as one stream of persons, auctions and bids, and queries over it.

Source: Tucker, Tufte, Papadimos, Maier, NEXMark (2002), with the generator and queries of Apache Beam and Flink.
"""
