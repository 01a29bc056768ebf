"""Measurements that a test cannot make without depending on the machine."""
