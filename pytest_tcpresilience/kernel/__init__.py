"""Linux calls, nothing else: what one socket can be made to do or say.

Each module is a thin layer over one kernel interface. Nothing here decides anything,
waits, or knows pytest, trio, links or faults.
"""
