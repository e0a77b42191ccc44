"""The daemon's API over HTTP: what `daemon.service` does, for whoever has the token.

app        the application, put together
security   who is heard: host, origin, token or session, size and type of the body
session    the page's cookie, derived from the token
problems   every refusal as RFC 9457 problem details
shapes     what answers look like; asking: what requests look like
paging     lists in pages
streams    server-sent events: one look at the database and files, however many listen
metrics    figures for Prometheus
routes/    a file for each resource
schema     writes docs/openapi.json
"""
