"""Pushing blobs: begin, append, ask, finish, cancel, mount. Source: distribution-spec 1.1 «Pushing blobs»."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import msgspec

from ..errors import Conflict, InvalidInput
from ..oci.digest import Digest
from . import errors
from .messages import Response, in_thread, start_in_thread

if TYPE_CHECKING:
    from .app import Site
    from .messages import Request
    from .sessions import Upload

BUSY_S = 5.0  # seconds that a request waits for an earlier one of the same upload, before it is refused
QUIET_S = 1.0  # seconds without a byte, after which the earlier one is ended instead
_LOOK_S = 0.02  # between two looks
_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,19})-([0-9]{1,19})(?:/.*)?")  # the specification's, and RFC 9110's


async def begin(site: Site, request: Request, name: str) -> Response:
    """POST …/blobs/uploads/: a new session, a whole blob (?digest=), or a mount (?mount=&from=)."""
    repository = site.storage.repository(name)
    stated, wanted = request.query("digest"), request.query("mount")
    if wanted is not None and await in_thread(_mount, site, name, wanted, request.query("from")):
        return _created(name, Digest(wanted))
    digest = Digest.parse(stated) if stated is not None else None
    session = await in_thread(site.uploads.create, name)
    if digest is None:
        return _progress(202, name, session, 0)
    upload = await in_thread(site.uploads.open, name, session)
    try:
        await _receive(request, upload)
        await in_thread(upload.commit, site.storage.blobs, digest)
    except BaseException:
        upload.discard()  # nobody was told this session's name, so nobody could continue it
        raise
    await in_thread(repository.link_blob, digest)
    return _created(name, digest)


async def append(site: Site, request: Request, name: str, session: str) -> Response:
    """PATCH: a chunk with Content-Range, which must continue the upload, or a stream without."""
    return await _fill(site, request, name, session, None)


async def finish(site: Site, request: Request, name: str, session: str) -> Response:
    """PUT ?digest=: the last bytes, if any, and the end."""
    stated = request.query("digest")
    if stated is None:
        raise InvalidInput("the digest parameter is missing", code="digest-invalid", hint="PUT …?digest=sha256:…")
    return await _fill(site, request, name, session, Digest.parse(stated))


async def status(site: Site, request: Request, name: str, session: str) -> Response:
    """GET: how far the upload has come; after what is still on its way from a connection that broke, if it can be."""
    try:
        upload = await _take(site, name, session, patience_s=QUIET_S, supersede=False)
    except Conflict:  # somebody watches it grow
        return _progress(204, name, session, await in_thread(site.uploads.offset, name, session))
    upload.close()
    return _progress(204, name, session, upload.offset)


async def cancel(site: Site, request: Request, name: str, session: str) -> Response:
    """DELETE: give the upload up."""
    upload = await _take(site, name, session)
    await in_thread(upload.discard)
    return Response(204)


async def _fill(site: Site, request: Request, name: str, session: str, digest: Digest | None) -> Response:
    repository = site.storage.repository(name)
    upload = await _take(site, name, session)
    site.writing[session] = request
    try:
        await _receive(request, upload)
        if digest is None:
            return _progress(202, name, session, upload.offset)
        await in_thread(upload.commit, site.storage.blobs, digest)
    except InvalidInput as error:
        if error.code != "upload-range":
            raise
        refusal = errors.response(error)
        place = _progress(416, name, session, upload.offset).headers
        return msgspec.structs.replace(refusal, headers={**refusal.headers, **place})
    finally:
        site.writing.pop(session, None)
        upload.close()
    await in_thread(repository.link_blob, digest)
    return _created(name, digest)


async def _take(site: Site, name: str, session: str, *, patience_s: float = BUSY_S, supersede: bool = True) -> Upload:
    """The session, ours alone. A client that asks again has given up what it asked before, but we may not know yet.

    What the earlier request still brings is waited for; one that has fallen silent, as after
    a lost network, is ended, where it is this process's. Raises NotFound, Conflict (upload-busy).
    """
    clock = asyncio.get_running_loop().time
    end = clock() + patience_s
    while True:
        try:
            return await in_thread(site.uploads.open, name, session)
        except Conflict:
            if clock() >= end:
                raise
        earlier = site.writing.get(session)
        if supersede and earlier is not None:
            earlier.supersede(QUIET_S)
        await asyncio.sleep(_LOOK_S)


async def _receive(request: Request, upload: Upload) -> None:
    """The request's body onto the upload; the next block is read from the socket while one is written."""
    start = upload.offset
    end = _promised_end(request, start)
    writing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    writing.set_result(None)
    try:
        async for pieces in request.blocks():
            await writing
            writing = start_in_thread(upload.append, pieces)
    finally:
        await asyncio.wait([writing])
    writing.result()
    if end is not None and upload.offset != end:
        came = upload.offset - start
        await in_thread(upload.rewind, start)
        raise _out_of_range(f"Content-Range promised {end - start} bytes, {came} came", start)


def _promised_end(request: Request, offset: int) -> int | None:
    """Where the upload will stand after this chunk, by its Content-Range; None without one."""
    text = request.headers.get("content-range")
    if text is None:
        return None
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        raise _out_of_range(f"not a Content-Range: {text!r}", offset)
    first, last = int(match[1]), int(match[2])
    length = request.headers.get("content-length")
    if first != offset:
        raise _out_of_range(f"the chunk begins at byte {first}", offset)
    if last < first or (length is not None and length.isdecimal() and int(length) != last - first + 1):
        raise _out_of_range(f"Content-Range {text!r} and Content-Length {length} disagree", offset)
    return last + 1


def _mount(site: Site, name: str, wanted: str, source: str | None) -> bool:
    """Link a blob that repository *source* holds; whatever stands against it, the client uploads instead."""
    try:
        digest = Digest.parse(wanted)
        if source is None or site.storage.repository(source).blob_size(digest) is None:
            return False
    except InvalidInput:
        return False
    site.storage.repository(name).link_blob(digest)
    return True


def _progress(status: int, name: str, session: str, offset: int) -> Response:
    """«0-0» is also what an empty upload says; a client that must know asks for Content-Range's refusal."""
    headers = {
        "location": f"/v2/{name}/blobs/uploads/{session}",
        "range": f"0-{max(0, offset - 1)}",
        "docker-upload-uuid": session,
    }
    return Response(status, headers)


def _created(name: str, digest: Digest) -> Response:
    return Response(201, {"location": f"/v2/{name}/blobs/{digest}", "docker-content-digest": digest})


def _out_of_range(why: str, offset: int) -> InvalidInput:
    return InvalidInput(
        "the chunk does not continue the upload",
        code="upload-range",
        context=f"{why}; the upload stands at byte {offset}",
        hint="ask for the upload's status and continue from there",
    )
