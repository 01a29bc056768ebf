"""From events to words: what happened, what it means, and what to say about it.

Pure functions over plain values. Nothing here opens a socket, reads a clock, or knows
pytest, trio or the engine.
"""
