"""Revisions by variant and definition: resolved once, stored typed, and never looked up again."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import update

from controller.db.repository import Repository
from controller.db.session import Database
from controller.db.tables import revisions
from controller.definition.request import RevisionRequest
from controller.definition.variants import RuntimeVariant
from controller.errors import Conflict, InvalidInput, NotFound
from controller.model import Lifecycle, Outcome
from controller.model_definition import ModelDefinition, Source
from controller.model_folder import ModelFolders
from controller.service import Service
from tests.fakes.database import SPEC, only
from tests.fakes.definitions import layer, served
from tests.fakes.verbs import OTHER_SPEC, apply_demo, outcomes_of_demo, promote_demo

VLLM = RevisionRequest(
    variant=RuntimeVariant.VLLM,
    model_path="/models/a",
    definition=layer({"service": {"port": 7002}, "metadata": {"title": "A"}}),
)
CUSTOM = RevisionRequest(variant=RuntimeVariant.CUSTOM, model_folder="chat")


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> None:
    """What a test arranges in a folder, it arranges with plain calls."""


@pytest.fixture
def write_file(tmp_path: Path) -> Callable[[str], Path]:
    (tmp_path / "chat").mkdir()
    path = tmp_path / "chat" / "model-definition.yaml"

    def write(command: str) -> Path:
        path.write_text(f"models: [{{name: chat, service: {{start_command: [{command}]}}}}]")
        return path

    return write


@pytest.fixture
def verbs(database: Database, tmp_path: Path) -> Service:
    """The service, with model folders to read."""
    return Service(database, folders=ModelFolders(base=tmp_path, root=tmp_path))


class TestStored:
    async def test_the_definition_is_stored_typed_and_both_pointers_carry_it(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        """R-59"""
        await apply_demo(service, revision=VLLM)
        await promote_demo(database, epoch=epoch)
        other = RevisionRequest(variant=RuntimeVariant.SGLANG, model_path="/models/b")
        added = await service.add_revision("demo", other, auto_activate=True)
        deployment = await only(Repository(database))
        assert deployment.current is not None
        first = deployment.current.definition
        assert isinstance(first, ModelDefinition)
        assert (first.variant, served(first).port) == ("vllm", 7002)
        assert first.sources["models[0].service.port"] is Source.OVERRIDE
        assert deployment.deploying == added
        assert added.definition is not None
        assert added.definition.variant == "sglang"
        assert await service.get_revision("demo", 2) == added
        assert await service.list_revisions("demo") == (added, deployment.current)

    async def test_what_is_provisioned_is_what_the_definition_came_to(
        self, service: Service
    ) -> None:
        """R-59"""
        deployment = (await apply_demo(service, revision=VLLM)).deployment
        assert deployment.deploying is not None
        spec = deployment.deploying.spec
        assert (spec.command, spec.port) == (("vllm", "serve", "/models/a"), 7002)
        assert spec.health_check is not None
        assert (spec.health_check.path, spec.health_check.initial_delay_s) == ("/health", 1800)

    async def test_a_plain_revision_has_no_definition(self, service: Service) -> None:
        await apply_demo(service, revision=RevisionRequest(command=("serve",)))
        await service.add_revision("demo", SPEC)
        found = await service.list_revisions("demo")
        assert [(one.spec.command, one.definition) for one in found] == [
            (SPEC.command, None),
            (("serve",), None),
        ]

    async def test_repeating_a_variant_changes_nothing(
        self, database: Database, service: Service
    ) -> None:
        await apply_demo(service, revision=VLLM)
        written = dict(database.sql_writes)
        assert (await apply_demo(service, revision=VLLM)).changes == ()
        assert dict(database.sql_writes) == written

    async def test_another_title_is_another_revision(self, service: Service) -> None:
        await apply_demo(service, revision=VLLM)
        renamed = RevisionRequest(
            variant=RuntimeVariant.VLLM,
            model_path="/models/a",
            definition=layer({"service": {"port": 7002}, "metadata": {"title": "B"}}),
        )
        applied = await apply_demo(service, revision=renamed)
        assert applied.changes == ("added revision 2", "activated revision 2")

    @pytest.mark.parametrize("text", ["[]", '{"models": [{"service": 3}]}', "not JSON"])
    async def test_a_definition_that_nobody_can_read_stops_nothing(
        self, database: Database, service: Service, text: str
    ) -> None:
        """R-15: it is kept for people, and nothing decides by it."""
        await apply_demo(service)
        async with database.write(epoch=None) as write:
            await write.connection.execute(update(revisions).values(definition=text))
        deployment = await only(Repository(database))
        assert deployment.deploying is not None
        assert (deployment.deploying.spec, deployment.deploying.definition) == (SPEC, None)

    async def test_a_definition_of_another_system_is_read_as_far_as_it_is_known(
        self, database: Database, service: Service
    ) -> None:
        """R-40: rows shaped like those in production."""
        await apply_demo(service)
        text = (
            '{"models": [{"name": "m", "model_path": "/models", "metadata": null, "service": '
            '{"pre_start_actions": [], "start_command": ["serve"], "shell": "/bin/bash", "port": '
            '8000, "health_check": {"path": "/health", "interval": 10.0, "max_retries": 10, '
            '"max_wait_time": 15.0, "expected_status_code": 200, "initial_delay": 60.0}}}]}'
        )
        async with database.write(epoch=None) as write:
            await write.connection.execute(update(revisions).values(definition=text))
        found = (await service.get_revision("demo", 1)).definition
        assert found is not None
        assert (served(found).start_command, served(found).port) == (("serve",), 8000)


class TestFile:
    async def test_a_later_change_of_the_file_changes_nothing_until_a_new_revision(
        self, verbs: Service, write_file: Callable[[str], Path]
    ) -> None:
        """R-58"""
        path = write_file("first")
        first = (await apply_demo(verbs, revision=CUSTOM)).deployment.deploying
        assert first is not None
        write_file("second")
        assert (await verbs.get_deployment("demo")).deploying == first
        path.unlink()
        assert await verbs.get_revision("demo", 1) == first
        assert first.spec.command == ("first",)
        write_file("third")
        second = await verbs.add_revision("demo", CUSTOM)
        assert (second.number, second.spec.command) == (2, ("third",))
        assert (await verbs.get_revision("demo", 1)).spec.command == ("first",)

    async def test_a_file_that_cannot_be_used_writes_nothing(
        self, database: Database, verbs: Service, write_file: Callable[[str], Path]
    ) -> None:
        """R-25"""
        write_file("a]]")
        for ask in (
            apply_demo(verbs, revision=CUSTOM),
            verbs.add_revision("demo", CUSTOM),
        ):
            with pytest.raises(InvalidInput, match=r"the definition file .* is not YAML"):
                await ask
        assert await verbs.list_deployments() == ()
        assert not database.sql_writes

    async def test_a_missing_folder_is_told_and_what_runs_goes_on(self, verbs: Service) -> None:
        await apply_demo(verbs)
        with pytest.raises(InvalidInput, match="chat cannot be used: No such file or directory"):
            await verbs.add_revision("demo", CUSTOM, auto_activate=True)
        deployment = await verbs.get_deployment("demo")
        assert deployment.lifecycle is Lifecycle.DEPLOYING
        assert len(await verbs.list_revisions("demo")) == 1

    async def test_without_a_root_no_folder_is_read(self, service: Service) -> None:
        with pytest.raises(InvalidInput, match="'chat' cannot be read here; set model_root"):
            await apply_demo(service, revision=CUSTOM)


class TestAutoActivate:
    async def test_adding_with_auto_activate_supersedes_the_rollout_in_flight(
        self, database: Database, service: Service, epoch: int
    ) -> None:
        """R-29"""
        await apply_demo(service)
        served_by = (await promote_demo(database, epoch=epoch)).current
        await service.add_revision("demo", OTHER_SPEC, auto_activate=True)
        third = await service.add_revision("demo", VLLM, auto_activate=True, actor="ada")
        deployment = await service.get_deployment("demo")
        assert (deployment.current, deployment.deploying) == (served_by, third)
        assert await outcomes_of_demo(service) == [Outcome.PROMOTED, Outcome.SUPERSEDED, None]
        superseded = next(
            one for one in await service.list_rollouts("demo") if one.outcome is Outcome.SUPERSEDED
        )
        assert superseded.message == "superseded: ada activated revision 3"

    async def test_adding_and_activating_are_one_transaction(
        self, database: Database, service: Service
    ) -> None:
        """R-29"""
        await apply_demo(service)
        await service.delete("demo")
        written = dict(database.sql_writes)
        with pytest.raises(Conflict):
            await service.add_revision("demo", OTHER_SPEC, auto_activate=True)
        assert len(await service.list_revisions("demo")) == 1
        assert dict(database.sql_writes) == written

    async def test_unknown_revision_is_told_with_those_there_are(self, service: Service) -> None:
        """R-29"""
        await apply_demo(service)
        await service.add_revision("demo", OTHER_SPEC)
        for question in (service.get_revision("demo", 7), service.activate("demo", 7)):
            with pytest.raises(NotFound, match="'demo' has no revision 7; it has 1, 2"):
                await question
