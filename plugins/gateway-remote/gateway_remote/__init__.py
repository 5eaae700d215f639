"""gateway-remote: hosted models over HTTP as services. `service.RemoteModel` is one; `config.ModelRow` says which.

config, presets, prices       what a row may say; what is usual for a provider; what models cost
formats/                      the wire formats: a request -> bytes, bytes -> a response or deltas; `api.py` is the seam
sse, jsonbytes                lines of a stream; JSON
failures, waits, quota        status, headers and body of an error -> a ServiceError; what is left of a rate limit
key_ring, secrets             keys in turn; the headers of a call, which never print
transport                     the seam to the network, and one API's connections
over_asyncio, http11, incoming    the transport that is used
over_httpx                    any `httpx.AsyncBaseTransport`, and HTTP/2
media                         media by URL, fetched where a request asks for that
service, hooks                all of it together; what the gateway finds
"""
