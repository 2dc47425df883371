"""A repository whose content can be had in several places: mirrors in their order, and the origin.

What a digest names is verified by whoever reads it, wherever it came from. Each place
has a login of its own, so none sees another's. What is written goes to the origin
alone. Source: containers-registries.conf(5) «Remapping and mirroring registries».
"""

from __future__ import annotations

import io
from itertools import chain, islice
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec

from ..errors import Corrupt, Error, NotFound, Unavailable
from .auth import Auth
from .hosts import API_HOSTS
from .registries import Endpoint
from .repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from ..oci.descriptor import Descriptor
    from ..oci.digest import Digest
    from ..oci.reference import Reference
    from .credentials import Credentials
    from .messages import HttpResponse
    from .registries import Registries, Rule
    from .repository import Resolved
    from .transport import Transport

Answer = TypeVar("Answer")
_SOON = 64 * 1024  # bytes of a connection
_SMALL = 4 * 2**20  # bytes; documents, read whole and verified before anybody sees them


def connect(
    reference: Reference,
    *,
    transport: Transport,
    credentials: Credentials,
    registries: Registries,
    for_writing: bool = False,
) -> Repository:
    """The repository that *reference* lies in, with the user's credentials for it; nothing is sent yet.

    *registries* says where it is read from. *for_writing*, also what is read comes from
    the registry itself. Raises Unauthorized (registry-blocked), InvalidInput (a file is
    damaged).
    """
    rule = registries.allowed(reference)
    auth = _auth(reference, credentials)
    if rule is None:
        return Repository(transport, reference.registry, reference.repository, auth)

    def at(endpoint: Endpoint, *, is_mirror: bool) -> Repository:
        there = rule.rewritten(reference, endpoint)
        host = API_HOSTS.get(there.registry, there.registry).lower()
        return Repository(
            transport.adapted({host: registries.settings_of(endpoint, host)}, is_mirror=is_mirror),
            there.registry,
            there.repository,
            auth if there.name == reference.name else _auth(there, credentials),
            suggests=not is_mirror,
            api=endpoint.api,
            namespace=endpoint.namespace,
        )

    origin = at(rule.origin, is_mirror=False)
    is_home = origin.name == reference.name
    if is_home and (for_writing or not rule.mirrors):
        return origin
    if for_writing:
        return Repository(transport, reference.registry, reference.repository, auth)
    places = (*(at(mirror, is_mirror=True) for mirror in rule.mirrors), origin)
    transport.note(f"* {rule.file}: {reference.name} is read from {', then '.join(place.name for place in places)}")
    # What is said of its own host holds for writing too.
    return MirroredRepository(origin.transport if is_home else transport, reference, auth, rule, places)


def _auth(reference: Reference, credentials: Credentials) -> Auth:
    return Auth(
        reference.registry,
        lambda: credentials.find(reference.registry, reference.repository),
        name=reference.name,
        problems=lambda: "\n".join(credentials.problems),
    )


class _Place(msgspec.Struct, frozen=True, eq=False):
    """One of the places; compared by identity."""

    endpoint: Endpoint
    repository: Repository

    @property
    def name(self) -> str:
        return self.repository.name


class MirroredRepository(Repository):
    """Reads from *repositories*, the origin last; writes as the Repository that it is."""

    def __init__(
        self, transport: Transport, reference: Reference, auth: Auth, rule: Rule, repositories: tuple[Repository, ...]
    ) -> None:
        super().__init__(transport, reference.registry, reference.repository, auth)
        self._rule = rule
        pairs = zip((*rule.mirrors, rule.origin), repositories, strict=True)
        self._places = tuple(_Place(endpoint, repository) for endpoint, repository in pairs)
        self._origin = self._places[-1]
        #: the place that knew the name
        self._served: _Place | None = None
        #: places that did not answer, or let nobody in
        self._failing: set[_Place] = set()
        #: {digest: places that sent something of it}, {digest: places that sent it wrong}
        self._senders: dict[Digest, set[_Place]] = {}
        self._liars: dict[Digest, set[_Place]] = {}

    @property
    def source(self) -> str:
        return (self._served or self._origin).name

    def resolve(self, reference: Reference) -> Resolved:
        """As Repository.resolve, from the first place that has it; when none has, the origin's error."""
        refusals: list[tuple[_Place, Error]] = []
        for place in self._places:
            if not (place is self._origin or _may_be_asked(place.endpoint, by_digest=reference.digest is not None)):
                continue
            try:
                found = place.repository.resolve(self._rule.rewritten(reference, place.endpoint))
            except Error as error:
                self._note_refusal(place, error)
                refusals.append((place, error))
            else:
                self._served = place
                self.note(f"{reference} comes from {place.name}")
                return found
        raise _explained(refusals)

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> BinaryIO:
        """As Repository.open; what is small is verified before it is given, so that another place can stand in."""
        if offset or descriptor.size > _SMALL:
            return super().open(descriptor, offset=offset)
        while True:
            try:
                with super().open(descriptor) as stream:
                    return cast("BinaryIO", io.BytesIO(stream.read()))
            except Corrupt:
                if not self.distrust(descriptor):
                    raise

    def distrust(self, descriptor: Descriptor) -> bool:
        digest = descriptor.digest
        senders = self._senders.pop(digest, set())
        mirrors = senders - {self._origin}
        self._liars.setdefault(digest, set()).update(mirrors or senders)
        for place in mirrors or senders:
            self.note(f"{place.name} sent something else as {digest}")
        if senders and self.order(digest):
            return True
        del self._liars[digest]  # whoever tries again all the same may
        return False

    def tags(self) -> Iterator[str]:
        """As Repository.tags, of the origin; a mirror knows what it has been asked for, so it only stands in."""
        return self._of_the_origin(lambda repository: _begun(repository.tags()))

    def digest_of(self, tag: str) -> Digest:
        """As Repository.digest_of, of the origin, as tags."""
        return self._of_the_origin(lambda repository: repository.digest_of(tag))

    def has_blob(self, digest: Digest) -> bool:
        """As Repository.has_blob, of the origin, as tags."""
        return self._of_the_origin(lambda repository: repository.has_blob(digest))

    def _of_the_origin(self, ask: Callable[[Repository], Answer]) -> Answer:
        """What the origin answers; while it is not to be reached, a mirror."""
        refusals: list[tuple[_Place, Error]] = []
        for place in sorted(self._places, key=lambda place: place is not self._origin):
            if place is self._origin or _may_be_asked(place.endpoint, by_digest=False):
                try:
                    return ask(place.repository)
                except Unavailable as error:
                    self._note_refusal(place, error)
                    refusals.append((place, error))
        raise _explained(refusals)

    def order(self, digest: Digest) -> list[_Place]:
        """Where to ask for a blob, best first: where the manifest came from, before those who might have it."""

        def rank(place: _Place) -> tuple[bool, int]:
            by_content = place.endpoint.serves == "content-only" and place is not self._origin
            return place in self._failing, 0 if by_content else 1 if place is self._served else 2

        liars = self._liars.get(digest, set())
        usable = [
            place
            for place in self._places
            if place not in liars and (place.endpoint.serves != "tag-only" or place is self._served)
        ]
        return sorted(usable, key=rank)

    def fetch_from(self, place: _Place, descriptor: Descriptor, start: int, end: int) -> HttpResponse:
        """A GET for a part of a blob to one place, and remember how it went."""
        try:
            response = place.repository._fetch(descriptor, start, end)
        except Error as error:
            self._note_refusal(place, error)
            if not isinstance(error, NotFound):
                self._failing.add(place)
            raise
        self._senders.setdefault(descriptor.digest, set()).add(place)
        return response

    def note(self, line: str) -> None:
        """Tell --debug."""
        self.transport.note(f"* {line}")

    def _fetcher(self, descriptor: Descriptor) -> Callable[[int, int], HttpResponse]:
        return _Fetcher(self, descriptor)

    def _note_refusal(self, place: _Place, error: Error) -> None:
        self.note(f"not from {place.name}: {error.message}" + (f": {error.context}" if error.context else ""))


class _Fetcher:
    """Sends the GETs of one stream. A place whose connection broke off soon has failed, and another is asked."""

    def __init__(self, repository: MirroredRepository, descriptor: Descriptor) -> None:
        self._repository = repository
        self._descriptor = descriptor
        self._failed: set[_Place] = set()
        #: the place that was asked last, and for the bytes from where on
        self._last: tuple[_Place, int] | None = None

    def __call__(self, start: int, end: int) -> HttpResponse:
        if self._last is not None and start - self._last[1] < _SOON:
            self._failed.add(self._last[0])
        order = self._repository.order(self._descriptor.digest)
        refusals: list[tuple[_Place, Error]] = []
        for place in [place for place in order if place not in self._failed] or order:
            try:
                response = self._repository.fetch_from(place, self._descriptor, start, end)
            except Error as error:
                refusals.append((place, error))
            else:
                self._last = place, start
                return response
        raise _explained(refusals)


def _begun(tags: Iterator[str]) -> Iterator[str]:
    """The same tags, with the first page asked for: who does not answer is found out now."""
    return chain(list(islice(tags, 1)), tags)


def _may_be_asked(endpoint: Endpoint, *, by_digest: bool) -> bool:
    """Whether a mirror is asked for a name with a digest, or for a tag."""
    return endpoint.serves in (("all", "digest-only", "content-only") if by_digest else ("all", "tag-only"))


def _explained(refusals: list[tuple[_Place, Error]]) -> Error:
    """The last place's error, with what the others said."""
    *others, (_, error) = refusals
    lines = [f"{place.name} was asked before: {one.message}" for place, one in others]
    error.context = "\n".join(filter(None, [error.context, *lines]))
    return error
