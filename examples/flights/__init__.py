"""The 336,776 departures from New York in 2013: delays per airport and hour.

``data`` reads the flights, ``topology`` is the job, ``expected`` is what it must find.
"""
