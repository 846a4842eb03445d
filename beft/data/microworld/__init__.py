"""Generated text with known ground truth: sentences, pairs, stories, people and posts of one small world.

Every text is deterministic given its seed, and the splits of every task are disjoint by construction.
"""
