"""The definition file in a model's folder: found, read once, and never read elsewhere."""

import json
import os
from pathlib import Path

import pytest

from controller.definition.request import RevisionRequest
from controller.definition.variants import RuntimeVariant
from controller.errors import InvalidInput
from controller.model_definition import Source
from controller.model_folder import ModelFolders, folders_of, read_layer
from controller.settings import Settings
from tests.fakes.definitions import layer, served

YAML = "models: [{name: by-file, service: {port: 7001, health_check: {path: /file}}}]\n"
TOML = '[[models]]\nname = "by-file"\nservice = {port = 7001, health_check = {path = "/file"}}\n'
SAYS = {"name": "by-file", "service": {"port": 7001, "health_check": {"path": "/file"}}}
SAID, JSON = layer(SAYS), json.dumps({"models": [SAYS]})


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> None:
    """What a test arranges, it arranges with plain calls."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "models" / "chat"
    made.mkdir(parents=True)
    return made


def refusal(folder: Path, *, root: Path | None = None) -> str:
    with pytest.raises(InvalidInput) as refused:
        read_layer(folder, root=root)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "text"), [("yaml", YAML), ("yml", YAML), ("json", JSON), ("toml", TOML)]
)
def test_the_file_is_found_under_each_of_its_names(folder: Path, name: str, text: str) -> None:
    (folder / f"model-definition.{name}").write_text(text)
    assert read_layer(folder, root=folder.parent) == SAID


def test_only_a_missing_file_falls_through(folder: Path) -> None:
    """R-25"""
    (folder / "other.yaml").write_text("]")
    assert read_layer(folder, root=None) is None


def test_two_files_are_refused_by_name(folder: Path) -> None:
    """R-25"""
    (folder / "model-definition.yaml").write_text(YAML)
    (folder / "model-definition.json").write_text(JSON)
    said = "has both model-definition.yaml and model-definition.json; keep one"
    assert refusal(folder) == f"{folder} {said}"


def test_a_missing_folder_is_told_and_no_crash(folder: Path) -> None:
    said = refusal(folder / "gone")
    assert said.startswith(f"model_folder: {folder / 'gone'} cannot be used: No such file")
    (folder / "file").write_text("")
    assert "is not a folder" in refusal(folder / "file")
    (folder / "loop").symlink_to(folder / "loop")
    assert "cannot be used" in refusal(folder / "loop")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"models: [", "is not YAML: "),
        (b"models: {}", "models: expected array | null, got object"),
        (b"models: [{service: {port: 1, port: 2}}]", "line 1: the key 'port' stands there twice"),
        (b"", "the document: expected object, got null"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"#" * 1_048_577, "is larger than 1048576 bytes"),
        (b"!!python/object/apply:os.system [exit]", "is not YAML: "),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_malformed_file_is_refused_by_its_name(folder: Path, content: bytes, said: str) -> None:
    """R-25"""
    path = folder / "model-definition.yaml"
    path.write_bytes(content)
    assert refusal(folder).startswith(f"the definition file {path}")
    assert said in refusal(folder)


class TestEscape:
    def test_a_link_out_of_the_folder_is_refused(self, folder: Path) -> None:
        secret = folder.parent / "secret.yaml"
        secret.write_text(YAML)
        (folder / "model-definition.yaml").symlink_to("../secret.yaml")
        assert "is a link to outside its folder" in refusal(folder)

    def test_a_link_inside_the_folder_is_followed(self, folder: Path) -> None:
        (folder / "..data").mkdir()
        (folder / "..data" / "real.yaml").write_text(YAML)
        (folder / "model-definition.yaml").symlink_to("..data/real.yaml")
        assert read_layer(folder, root=None) == SAID

    def test_a_link_to_nothing_is_not_a_missing_file(self, folder: Path) -> None:
        """R-25"""
        (folder / "model-definition.yaml").symlink_to("gone.yaml")
        assert "cannot be read: No such file" in refusal(folder)

    def test_a_folder_outside_the_root_is_refused(self, folder: Path, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (folder.parent / "link").symlink_to(outside)
        for name in (outside, folder.parent / "link"):
            assert "is outside" in refusal(name, root=folder.parent)

    def test_a_pipe_is_no_file_and_nobody_waits_for_it(self, folder: Path) -> None:
        os.mkfifo(folder / "model-definition.yaml")
        assert "is not a file" in refusal(folder)


class TestResolve:
    def asked(self, **given: object) -> RevisionRequest:
        known: dict[str, object] = {
            "variant": RuntimeVariant.VLLM,
            "model_folder": "chat",
            "definition": layer({"service": {"health_check": {"interval": 3}}}),
        }
        return RevisionRequest(**(known | given))  # type: ignore[arg-type]

    async def test_a_file_goes_over_the_variant_only_when_that_is_switched_on(
        self, folder: Path
    ) -> None:
        """R-60: who upgrades gets what he got before."""
        (folder / "model-definition.yaml").write_text(YAML)
        root = str(folder.parent)
        off = await folders_of(Settings(model_root=root)).resolve(self.asked())
        on = await folders_of(
            Settings(model_root=root, enable_model_definition_override=True)
        ).resolve(self.asked())
        assert Settings().enable_model_definition_override is False
        assert (off.spec.port, on.spec.port) == (8000, 7001)
        assert off.definition is not None
        assert on.definition is not None
        assert Source.FILE not in off.definition.sources.values()
        assert on.definition.sources["models[0].service.port"] is Source.FILE

    async def test_custom_reads_its_file_whatever_is_switched(self, folder: Path) -> None:
        (folder / "model-definition.yaml").write_text(YAML)
        found = await ModelFolders(base=folder.parent).resolve(
            self.asked(variant=RuntimeVariant.CUSTOM)
        )
        check = found.spec.health_check
        assert check is not None
        assert (found.spec.port, check.path, check.interval_s) == (7001, "/file", 3)

    async def test_custom_in_a_folder_without_a_file_is_refused(self, folder: Path) -> None:
        with pytest.raises(InvalidInput, match="takes everything from the definition file"):
            await ModelFolders(base=folder.parent).resolve(
                self.asked(variant=RuntimeVariant.CUSTOM)
            )

    async def test_the_folder_is_the_path_of_the_model_unless_another_is_given(
        self, folder: Path
    ) -> None:
        folders = ModelFolders(base=folder.parent)
        found = await folders.resolve(self.asked(model_folder="x/../chat"))
        assert found.definition is not None
        assert served(found.definition).start_command == ("vllm", "serve", str(folder))
        found = await folders.resolve(self.asked(model_path="/inside"))
        assert found.spec.command == ("vllm", "serve", "/inside")

    async def test_no_folder_may_be_named_where_none_is_allowed(self) -> None:
        with pytest.raises(InvalidInput, match="cannot be read here; set model_root"):
            await folders_of(Settings()).resolve(self.asked())

    async def test_a_folder_that_leads_out_of_the_root_is_refused(self, folder: Path) -> None:
        folders = ModelFolders(base=folder, root=folder, over_variant=True)
        with pytest.raises(InvalidInput, match="is outside"):
            await folders.resolve(self.asked(model_folder="../.."))
