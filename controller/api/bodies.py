"""Request bodies: JSON into what a verb takes, refused in a sentence with place, value and remedy.

A deployment goes through the reader of deployment files, so that the API refuses what the command
line refuses, in the same words.
"""

import re
from typing import Any, Final, TypeVar

import msgspec
from litestar.dto import MsgspecDTO
from litestar.exceptions import HTTPException
from litestar.openapi.spec import Reference, Schema
from litestar.typing import FieldDefinition

from controller.api.views import RevisionWish
from controller.definition.deployment_file import DeploymentFile, Syntax, parse
from controller.errors import InvalidInput

_Body = TypeVar("_Body", bound=msgspec.Struct)
_PLACED: Final = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>.*)`)?", re.DOTALL)
_SHOWN_CHARS: Final = 80


class JsonBody(MsgspecDTO[_Body]):
    """How the API reads a body of one kind; described as that kind."""

    def decode_bytes(self, value: bytes) -> Any:  # noqa: ANN401 - the kind that it was made for
        """Read a body.

        Raises:
            HTTPException: if it is not JSON.
            InvalidInput: if it holds what cannot be.
        """
        content_type = self.asgi_connection.headers.get("content-type", "").partition(";")[0]
        if content_type.strip().lower() not in ("", "application/json"):
            raise HTTPException(
                f"{content_type!r} is not read here; send application/json", status_code=415
            )
        try:
            return self._read(_json(value))
        except RecursionError as error:  # also what was read just so, and is shown or copied next
            raise HTTPException(
                "the body is not JSON of a depth that is read here", status_code=400
            ) from error

    def _read(self, document: object) -> Any:  # noqa: ANN401 - same
        name = str(self.asgi_connection.path_params.get("name", ""))
        kind = self.model_type
        if issubclass(kind, DeploymentFile):
            return deployment_of(name, document)
        if issubclass(kind, RevisionWish):
            return _revision_of(name, document)
        return _converted(document, kind)

    @classmethod
    def create_openapi_schema(
        cls,
        field_definition: FieldDefinition,
        handler_id: str,  # noqa: ARG003 - litestar's signature
        schema_creator: Any,  # noqa: ANN401 - not public in litestar
    ) -> Reference | Schema:
        """Describe the body as what it is, not as a copy under a name of litestar's own."""
        found: Reference | Schema = schema_creator.for_field_definition(field_definition)
        return found

    @classmethod
    def create_for_field_definition(
        cls,
        field_definition: FieldDefinition,
        handler_id: str,
        backend_cls: Any = None,  # noqa: ANN401 - same
    ) -> None:
        """Make no transfer models: the body is read by `decode_bytes` alone."""


def deployment_of(name: str, document: object) -> DeploymentFile:
    """Return the deployment in a body; its name is that of the path, and may be left out.

    Raises:
        InvalidInput: if it cannot be.
    """
    if not isinstance(document, dict):
        raise InvalidInput("the body: write an object with replicas, policy and revision")
    if document.get("name", name) != name:
        raise InvalidInput(
            f"name: {str(document['name'])[:_SHOWN_CHARS]!r} is not that of the path, {name!r}; "
            "leave it out"
        )
    text = msgspec.json.encode(document | {"name": name}).decode()
    return parse(text, syntax=Syntax.JSON)


def _revision_of(name: str, document: object) -> RevisionWish:
    known = RevisionWish.__struct_fields__
    if not isinstance(document, dict) or not document.keys() <= set(known):
        raise InvalidInput(f"the body: write an object with {', '.join(known)} and no other")
    found = deployment_of(name, {"auto_activate": False} | document)
    return RevisionWish(revision=found.revision, auto_activate=found.auto_activate)


def _json(value: bytes) -> object:
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HTTPException(f"the body is not JSON: {error}", status_code=400) from error


def _converted(document: object, kind: type[_Body]) -> _Body:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        placed = _PLACED.fullmatch(str(error))
        what, where = (placed["what"], placed["where"]) if placed else (str(error), None)
        known = ", ".join(kind.__struct_fields__)
        found = document.get(where) if isinstance(document, dict) and where else document
        shown = repr(found)[:_SHOWN_CHARS]
        plain = what.replace("`", "")
        raise InvalidInput(
            f"{where or 'the body'}: {plain}, found {shown}; an object with {known} is expected"
        ) from error
