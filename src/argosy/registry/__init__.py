"""The OCI distribution server: an ASGI application over the store's blobs and a folder of links.

`app.create_app(root)` makes the application for any ASGI server; `serve.serve` runs
it under uvicorn, which is what `argosy registry serve` does. Needs nothing of the
engine but errors, oci, linux and store, and is the only package that imports asyncio.
"""
