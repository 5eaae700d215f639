"""Wire formats: each a few modules of pure functions, from a request to bytes and from bytes to a reply. No I/O.

api.py is the seam, body.py writes a body and refuses what it cannot carry, reading.py reads a stream, values.py and
blocks.py are what several formats share. A format is named by the `api` of a row; `api_named` gives it.
"""
