"""A real network of client, router and server, for the truth about faults.

From the wire up: :mod:`.segment` is what crosses it, :mod:`.listing` and :mod:`.capture`
show it; :mod:`.plan` is what the hosts are told; :mod:`.keeper` holds the namespaces, in a
process of its own, and :mod:`.channel` speaks to it; :mod:`.inside` lets code of this process
make its sockets there; :mod:`.host` and :mod:`.lab` are what a test holds.

This room knows neither the engine nor virtual time. It says what real kernels do, and the
others are held to that.
"""
