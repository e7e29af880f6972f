"""Variant, definition file and override in layers: who wins, what is cleared, what is refused."""

from typing import Any

import msgspec
import pytest

from controller.definition.document import Syntax, load
from controller.definition.layers import DefinitionLayer, ModelLayer, ServiceLayer, layer_from
from controller.definition.resolve import resolve, values_of
from controller.definition.variants import RuntimeVariant
from controller.errors import InvalidInput
from controller.model_definition import ModelDefinition, Source
from tests.fakes.definitions import (
    IN_USE,
    MODEL,
    builtins,
    check,
    checked,
    come_to,
    layer,
    served,
    service,
)


class TestWinner:
    """R-56: each layer has a value of its own, so it is seen which one won."""

    @pytest.mark.parametrize(
        ("key", "default", "file", "override"),
        [
            ("path", "/health", "/file", "/override"),
            ("interval", 10, 11, 12),
            ("max_wait_time", 15, 16, 17),
            ("expected_status_code", 200, 201, 202),
            ("max_retries", 10, 20, 30),
            ("healthy_threshold", 1, 2, 3),
            ("initial_delay", 1800, 61, 62),
        ],
    )
    def test_the_higher_layer_that_speaks_wins_for_each_key_of_a_check(
        self,
        key: str,
        default: object,
        file: object,
        override: object,
    ) -> None:
        """R-56"""
        by_file, by_override = check(**{key: file}), check(**{key: override})
        others = {"interval": 33} if key != "interval" else {"max_retries": 33}
        found = [
            come_to(),
            come_to(file=by_file),
            come_to(file=by_file, override=check(**others)),
            come_to(override=by_override),
            come_to(file=by_file, override=by_override),
        ]
        values = [getattr(checked(each), key) for each in found]
        assert values == [default, file, file, override, override]
        place = f"models[0].service.health_check.{key}"
        lowest = Source.VARIANT if key in ("path", "initial_delay") else Source.DEFAULT
        assert [each.sources[place] for each in found] == [
            lowest,
            Source.FILE,
            Source.FILE,
            Source.OVERRIDE,
            Source.OVERRIDE,
        ]

    def test_service_and_metadata_are_laid_over_each_other_key_by_key(self) -> None:
        """R-56"""
        file = layer(
            {
                "name": "from-file",
                "service": {"port": 7001, "start_command": ["from", "file"]},
                "metadata": {"author": "file", "title": "file", "label": ["f", "ile"]},
            }
        )
        override = layer(
            {"service": {"port": 7002}, "metadata": {"title": "override", "label": ("o",)}}
        )
        (model,) = come_to(file=file, override=override).models
        assert (model.name, model.model_path) == ("from-file", MODEL)
        assert model.service is not None
        assert (model.service.port, model.service.start_command) == (7002, ("from", "file"))
        assert builtins(model.metadata) == {"author": "file", "title": "override", "label": ("o",)}

    def test_lists_are_replaced_whole(self) -> None:
        found = come_to(file=service(start_command=["a", "b", "c"]), override=service(port=1))
        assert served(found).start_command == ("a", "b", "c")
        found = come_to(
            file=service(start_command=["a", "b", "c"]), override=service(start_command=["d"])
        )
        assert served(found).start_command == ("d",)

    def test_models_are_told_apart_by_their_place_and_extra_ones_are_kept(self) -> None:
        file = layer({}, {"name": "second", "model_path": "/2"}, {"name": "third"})
        override = layer({"name": "first"}, {"metadata": {"title": "two"}})
        found = come_to(file=file, override=override).models
        assert [(each.name, each.model_path) for each in found] == [
            ("first", MODEL),
            ("second", "/2"),
            ("third", MODEL),
        ]
        assert builtins(found[1].metadata) == {"title": "two"}
        fewer = come_to(file=layer({"name": "only"}), override=file).models
        assert [each.name for each in fewer] == ["only", "second", "third"]

    def test_an_empty_layer_changes_nothing(self) -> None:
        for empty in (DefinitionLayer(), layer(), layer({}), layer({"service": {}})):
            assert come_to(file=empty, override=empty) == come_to()


class TestNull:
    def test_null_takes_away_what_lies_below(self) -> None:
        bare = come_to(override=layer({"service": {"health_check": None, "start_command": None}}))
        assert (served(bare).health_check, served(bare).start_command) == (None, None)
        assert served(bare).port == 8000
        assert checked(come_to(override=check(initial_delay=None))).initial_delay == 60

    def test_what_a_lower_layer_cleared_begins_anew_above_it(self) -> None:
        found = come_to(file=service(health_check=None), override=check(path="/mine"))
        assert (checked(found).path, checked(found).initial_delay) == ("/mine", 60)
        assert found.sources["models[0].service.health_check.initial_delay"] is Source.DEFAULT

    def test_who_cleared_a_value_is_told(self) -> None:
        found = come_to(file=service(health_check=None))
        assert ("models[0].service.health_check", Source.FILE, None) in list(values_of(found))

    @pytest.mark.parametrize(
        ("override", "place"),
        [
            (layer({"name": None}), "models[0].name"),
            (check(path=None), "models[0].service.health_check.path"),
        ],
    )
    def test_what_must_be_cannot_be_cleared(self, override: DefinitionLayer, place: str) -> None:
        """R-25"""
        with pytest.raises(InvalidInput) as refused:
            come_to(override=override)
        assert str(refused.value) == f"the override: {place}: there is none; write it"

    def test_without_a_service_nothing_can_run(self) -> None:
        """R-25"""
        said = r"the override: models\[0\]\.service: no model has one, so nothing can run"
        with pytest.raises(InvalidInput, match=said):
            come_to(override=layer({"service": None}))
        second = layer({"service": None}, {"name": "b", "service": {"port": 7003}})
        assert served(come_to(override=second)).port == 7003

    def test_without_a_model_there_is_no_definition(self) -> None:
        with pytest.raises(InvalidInput, match="the override: models: no model is left"):
            come_to(override=layer_from({"models": None}, what="it"))


class TestCommand:
    def test_the_path_of_the_model_is_put_in_wherever_it_stands(self) -> None:
        words = ["serve", "{model_path}", "--config={model_path}/c.json", "{}", '{"a": "{b}"}']
        found = served(come_to(override=service(start_command=words))).start_command
        assert found == ("serve", MODEL, f"--config={MODEL}/c.json", "{}", '{"a": "{b}"}')

    def test_the_path_is_that_of_its_own_model(self) -> None:
        file = layer({"model_path": "/from/file"})
        assert served(come_to(file=file)).start_command == ("vllm", "serve", "/from/file")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("serve --a 'b c' d\\ e", ("serve", "--a", "b c", "d e")),
            ('serve "{model_path}"', ("serve", MODEL)),
            ("serve $HOME *.py ~", ("serve", "$HOME", "*.py", "~")),
        ],
    )
    def test_text_is_split_and_no_shell_reads_it(self, text: str, words: tuple[str, ...]) -> None:
        assert served(come_to(override=service(start_command=text))).start_command == words

    def test_a_path_with_spaces_stays_one_word(self) -> None:
        found = come_to(override=service(start_command="serve {model_path}"), model_path="/a b")
        assert served(found).start_command == ("serve", "/a b")

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (
                "serve 'a",
                '"serve \'a" cannot be split: No closing quotation; write a list of words',
            ),
            ("  ", "there is no word in it; null leaves the image its own command"),
            ("cd /x && serve", "'&&' is for a shell, and none reads this; write a list of words"),
            ("serve > log", "'>' is for a shell"),
            (["serve", "a\0b"], "a NUL cannot be passed to a program; leave it out"),
        ],
    )
    def test_a_command_that_cannot_be_run_is_refused(self, text: Any, said: str) -> None:  # noqa: ANN401
        """R-25"""
        with pytest.raises(InvalidInput) as refused:
            come_to(file=service(start_command=text))
        place = "the definition file: models[0].service.start_command"
        assert str(refused.value).startswith(f"{place}: {said}")


class TestCustom:
    def test_the_file_is_the_lowest_layer(self) -> None:
        file = layer({"name": "own", "service": {"port": 1, "health_check": {"path": "/own"}}})
        found = come_to("custom", file=file, override=service(port=2))
        assert (found.models[0].name, served(found).port) == ("own", 2)
        assert served(found).start_command is None

    def test_its_checks_have_the_patience_of_a_large_model(self) -> None:
        file = layer(
            {"name": "a", "service": {"health_check": {"path": "/a"}}},
            {"name": "b", "service": {"health_check": {"path": "/b", "initial_delay": 5}}},
            {"name": "c", "service": {"port": 1}},
        )
        found = come_to("custom", file=file).models
        delays = [
            each.service and each.service.health_check and each.service.health_check.initial_delay
            for each in found
        ]
        assert delays == [1800, 5, None]

    def test_a_file_without_a_name_is_refused(self) -> None:
        """R-25"""
        with pytest.raises(InvalidInput, match=r"models\[0\]\.name: there is none; write it"):
            come_to("custom", file=service(port=1))


class TestStatusCodes:
    @pytest.mark.parametrize(
        ("written", "kept"),
        [
            (204, 204),
            ("200-299", "200-299"),
            ("200, 204", "200, 204"),
            ([200, "301-303"], "200,301-303"),
            ([204], "204"),
        ],
    )
    def test_codes_ranges_and_sets_are_kept(self, written: Any, kept: int | str) -> None:  # noqa: ANN401
        found = come_to(override=check(expected_status_code=written))
        assert checked(found).expected_status_code == kept

    @pytest.mark.parametrize("written", [99, 1000, "2xx", [200, "x"], [], "", "299-200"])
    def test_what_is_no_code_is_refused(self, written: Any) -> None:  # noqa: ANN401
        """R-25"""
        place = r"the override: models\[0\]\.service\.health_check\.expected_status_code: "
        with pytest.raises(InvalidInput, match=place):
            come_to(override=check(expected_status_code=written))


@pytest.mark.parametrize("name", IN_USE)
def test_files_in_use_are_read_as_they_are(name: str) -> None:
    """R-59: what comes of them is typed, and the same after it was stored."""
    file = layer_from(load(IN_USE[name], syntax=Syntax.YAML, what="it"), what="it")
    found = come_to("custom", file=file, model_path=None)
    assert msgspec.json.decode(msgspec.json.encode(found), type=ModelDefinition) == found
    command = served(found).start_command
    expected = {
        "vllm": ("8192", "/health", 60),
        "text as command": ("Embeddings, small", "/readyz", 1800),
        "without a check": ("run", None, None),
        "two models": ("/models/server", "/ok", 1800),
    }
    asked = served(found).health_check
    last = command[-1] if command else None
    assert (last, asked and asked.path, asked and asked.initial_delay) == expected[name]
    assert Source.OVERRIDE not in found.sources.values()
    if name == "vllm":
        metadata = builtins(found.models[0].metadata)
        assert (metadata["created"], metadata["version"]) == ("2024-09-03", 1.0)
        assert metadata["min_resource"] == {"cpu": 4, "mem": "16g", "cuda.shares": 1.5}


MALFORMED: list[tuple[object, str]] = [
    (None, "the document: expected object, got null"),
    ([], "the document: expected object, got array"),
    ("text", "the document: expected object, got str"),
    ({"model": []}, "the document: unknown key 'model'; did you mean 'models'?"),
    ({"models": {}}, "models: expected array | null, got object, found {}; write a list of models"),
    ({"models": [None]}, "models[0]: expected object, got null"),
    ({"models": [{}, []]}, "models[1]: expected object, got array, found []"),
    ({"models": [{"service": []}]}, "models[0].service: expected object | null, got array"),
    ({"models": [{"name": ""}]}, "models[0].name: expected str of length >= 1, found ''"),
    ({"models": [{"nmae": 1}]}, "models[0]: unknown key 'nmae'; did you mean 'name'?"),
    ({"models": [{"service": {"port": "8000"}}]}, "models[0].service.port: expected int | null"),
    ({"models": [{"service": {"port": 0}}]}, "models[0].service.port: expected int >= 1, found 0"),
    (
        {"models": [{"service": {"start_command": [8000]}}]},
        "models[0].service.start_command[0]: expected str, got int, found 8000",
    ),
    (
        {"models": [{"service": {"start_command": []}}]},
        "models[0].service.start_command: expected array of length >= 1, found []; write a list",
    ),
    (
        {"models": [{"service": {"health_check": {"interval": 1201}}}]},
        "models[0].service.health_check.interval: expected float <= 1200.0, found 1201",
    ),
    (
        {"models": [{"service": {"health_check": {"interval": 0}}}]},
        "models[0].service.health_check.interval: expected float >= 0.1, found 0",
    ),
    (
        {"models": [{"service": {"health_check": {"max_wait_time": 0}}}]},
        "models[0].service.health_check.max_wait_time: expected float > 0.0, found 0",
    ),
    (
        {"models": [{"service": {"health_check": {"max_retries": 0}}}]},
        "models[0].service.health_check.max_retries: expected int >= 1, found 0",
    ),
    (
        {"models": [{"service": {"health_check": {"initial_delay": -1}}}]},
        "models[0].service.health_check.initial_delay: expected float >= 0.0, found -1",
    ),
    (
        {"models": [{"service": {"health_check": {"max_wait": 1}}}]},
        "models[0].service.health_check: unknown key 'max_wait'; did you mean 'max_wait_time'?",
    ),
    (
        {"models": [{"service": {"pre_start_actions": [{"action": "run_command"}]}}]},
        "models[0].service: unknown key 'pre_start_actions'; nothing is run before the command",
    ),
    (
        {"models": [{"service": {"shell": "/bin/bash"}}]},
        "models[0].service: unknown key 'shell'; no shell reads the command",
    ),
    (
        {"models": [{"metadata": {"label": ["a", 1]}}]},
        "models[0].metadata.label[1]: expected str, got int, found 1",
    ),
    (
        {"models": [{"metadata": {"min_resource": {"cpu": float("nan")}}}]},
        "models[0].metadata.min_resource[...]: expected float >=",
    ),
    (
        {"models": [{"metadata": {"version": float("inf")}}]},
        "models[0].metadata.version: expected float <=",
    ),
    ({"models": [{}] * 65}, "models: expected array of length <= 64"),
]


@pytest.mark.parametrize(("document", "said"), MALFORMED, ids=lambda value: str(value)[:40])
def test_a_malformed_layer_is_refused_with_layer_field_and_reason(
    document: object, said: str
) -> None:
    """R-25"""
    with pytest.raises(InvalidInput) as refused:
        layer_from(document, what="the definition file /m/model-definition.yaml")
    assert str(refused.value).startswith(f"the definition file /m/model-definition.yaml: {said}")
    assert "\n" not in str(refused.value)


def test_a_health_check_without_a_path_is_told_to_whom_wrote_it() -> None:
    """R-25"""
    with pytest.raises(InvalidInput) as refused:
        come_to("cmd", file=check(interval=3))
    place = "models[0].service.health_check.path"
    assert str(refused.value) == f"the definition file: {place}: there is none; write it"


def test_a_path_that_cannot_be_sent_is_refused() -> None:
    """R-25"""
    with pytest.raises(InvalidInput, match=r"the override: .*\.path: '/a b' must be printable"):
        come_to(override=check(path="/a b"))


def test_a_path_put_in_so_often_that_nothing_could_be_started_is_refused() -> None:
    """A megabyte of placeholders would be stored as hundreds."""
    words = tuple("{model_path}" * 80 for _ in range(1000))
    layer = DefinitionLayer(models=(ModelLayer(service=ServiceLayer(start_command=words)),))
    with pytest.raises(InvalidInput) as refused:
        resolve(RuntimeVariant.VLLM, file_layer=None, override=layer, model_path="/" * 4096)
    assert str(refused.value).startswith(
        "the override: models[0].service.start_command: with the path of the model it has 327680000"
    )
