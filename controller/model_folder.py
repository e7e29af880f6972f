"""The folder of a model, and the definition file in it: read when a revision is added, never after.

Called by the operator's verbs before their transaction, and by `revision resolve`. Whoever may
name a folder must not learn of files elsewhere: the file has to be inside the folder, and the
folder inside the root where one is set. What the layers come to is not known here.
"""

import os
import stat
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread

from controller.definition.document import SIZE_MAX_CHARS, load, syntax_of
from controller.definition.layers import DefinitionLayer, layer_from
from controller.definition.request import Resolved, RevisionRequest, checked, resolved
from controller.definition.resolve import FILE_NAMES
from controller.definition.variants import RuntimeVariant
from controller.errors import InvalidInput
from controller.settings import Settings

READ_DEADLINE_S: Final = 10.0
"""A network disk that takes longer than this for some kilobytes is away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolders:
    """Which folders may be named, and when the file in one is read."""

    base: Path | None = None
    """What a relative name starts from; None: no folder may be named."""
    root: Path | None = None
    """What a folder must be inside of; None: the file's owner decides who may read it."""
    over_variant: bool = False
    """Whether a file goes over the variant's layer; that of `custom` is read anyway."""

    async def resolve(self, asked: RevisionRequest) -> Resolved:
        """Return what a revision is added with, reading the definition file if it has a say.

        Raises:
            InvalidInput: if the folder cannot be named or read, the file is malformed, or the
                layers come to nothing that can run.
        """
        checked(asked)
        if asked.model_folder is None:
            return resolved(asked, file_layer=None, folder=None)
        if self.base is None:
            raise InvalidInput(
                f"model_folder: {asked.model_folder!r} cannot be read here; set model_root in the "
                "controller's settings to the folder that all models are in"
            )
        folder = _normal(self.base / asked.model_folder)
        wanted = self.over_variant or asked.variant is RuntimeVariant.CUSTOM
        layer = await self._read(folder) if wanted else None
        return resolved(asked, file_layer=layer, folder=str(folder))

    async def _read(self, folder: Path) -> DefinitionLayer | None:
        work = partial(read_layer, folder, root=self.root)
        try:
            with anyio.fail_after(READ_DEADLINE_S):
                return await to_thread.run_sync(work, abandon_on_cancel=True)
        except TimeoutError as error:
            raise InvalidInput(
                f"model_folder: {folder} did not answer within {READ_DEADLINE_S:g} s; look whether "
                "its disk is mounted"
            ) from error


def folders_of(settings: Settings) -> ModelFolders:
    """Return the folders that may be named to a controller."""
    root = Path(settings.model_root) if settings.model_root else None
    return ModelFolders(
        base=root, root=root, over_variant=settings.enable_model_definition_override
    )


def _normal(path: Path) -> Path:
    """Return `path` without `..`, by its name alone: what it leads to is seen when it is read."""
    return Path(os.path.normpath(path))


def read_layer(folder: Path, *, root: Path | None) -> DefinitionLayer | None:
    """Return what the definition file in `folder` says; None when there is none.

    Raises:
        InvalidInput: if the folder is missing or outside `root`, there are two files, or the one
            there is leads out of the folder, is too large, cannot be read, or is malformed.
    """
    try:
        place = _real(folder)
        if root is not None and not place.is_relative_to(_real(root)):
            raise InvalidInput(f"model_folder: {folder} is outside {root}; name one inside")
        if not place.is_dir():
            raise InvalidInput(f"model_folder: {folder} is not a folder; name the one around it")
        found = [name for name in FILE_NAMES if _is_there(place / name)]
    except OSError as error:
        raise InvalidInput(
            f"model_folder: {folder} cannot be used: {error.strerror}; name a folder that exists "
            "on this machine"
        ) from error
    if len(found) > 1:
        raise InvalidInput(f"{folder} has both {found[0]} and {found[1]}; keep one")
    return _layer(place, found[0], shown=folder / found[0]) if found else None


def _layer(folder: Path, name: str, *, shown: Path) -> DefinitionLayer:
    what = f"the definition file {shown}"
    try:
        place = _real(folder / name)
        if not place.is_relative_to(folder):
            raise InvalidInput(f"{what} is a link to outside its folder; put the file itself there")
        text = _text(place, what)
    except OSError as error:
        raise InvalidInput(f"{what} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{what} is not UTF-8: {error.reason}, byte {error.start}") from error
    return layer_from(load(text, syntax=syntax_of(name), what=what), what=what)


def _real(path: Path) -> Path:
    """Return where `path` leads to; raises OSError when that is nowhere."""
    return Path(os.path.realpath(path, strict=True))


def _is_there(path: Path) -> bool:
    """Tell whether there is something; not being allowed to look is not absence."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _text(place: Path, what: str) -> str:
    """Read a file that is one; a pipe would never end, and a link may have been put there since."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(place, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InvalidInput(f"{what} is not a file; put one there")
        text = file.read(SIZE_MAX_CHARS + 1)
    if len(text) > SIZE_MAX_CHARS:
        raise InvalidInput(f"{what} is larger than {SIZE_MAX_CHARS} bytes; that is something else")
    return text.decode()
