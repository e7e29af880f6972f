"""Which model folders a command may name that works on the database itself: all that it can read.

A command runs with the rights of whoever types it, so nothing is kept from it. Whether a file
goes over a variant is the controller's setting; its variable counts for the command, too.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from controller.model_folder import ModelFolders
from probe.errors import SettingsError

VARIABLE: Final = "FLEETPULSE_CONTROLLER__ENABLE_MODEL_DEFINITION_OVERRIDE"


def local_folders() -> ModelFolders:
    """Return the folders of this machine; a relative name starts where the command does.

    Raises:
        SettingsError: if the variable is neither true nor false.
    """
    text = os.environ.get(VARIABLE, "false")
    try:
        over_variant = msgspec.convert(text, bool, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{VARIABLE} = {text!r}: write true or false") from error
    return ModelFolders(base=Path.cwd(), over_variant=over_variant)
