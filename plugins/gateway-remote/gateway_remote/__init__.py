"""gateway-remote: hosted models over HTTP as services. `service.RemoteModel` is one; `config.ModelRow` says which.

config.py says what a row may hold; request.py, response.py, stream.py, sse.py and failures.py turn requests
into bytes and bytes into replies, deltas and errors, without I/O; transport.py is the only file that
imports httpx; service.py puts them together; hooks.py is what the gateway finds.
"""
