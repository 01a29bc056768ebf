"""Many clients and many faults at once: the fixture ``tcp_matrix``.

Owns cells, each of one client and one fault: which there are, that they run side by side
without disturbing each other, and that each gets a verdict of its own. What a client should
do in a cell is an expectation's, as in any other test.
"""
