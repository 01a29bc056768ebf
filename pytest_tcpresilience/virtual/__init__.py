"""A TCP network for trio in virtual time: two hours of keepalive in milliseconds.

From the wire up: :mod:`.segment` is what crosses it; :mod:`.machine` is one end of a
connection, with its rules in :mod:`.states`, :mod:`.buffers`, :mod:`.timers` and
:mod:`.window`; :mod:`.host` has ports and connections; :mod:`.path` is what lies between
hosts; :mod:`.network` moves time and segments; :mod:`.trace` and :mod:`.pcap` show them.
None of these knows trio. :mod:`.sockets` and :mod:`.run` put trio on top, :mod:`.link` the
faults and expectations of real links.

This room knows neither the engine nor the lab, and opens no socket.
"""
