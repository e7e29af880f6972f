"""`fleetpulse up` with processes that the definition file in a model's folder describes."""

import json
from pathlib import Path

from tests.fakes.up import STOP_S, assert_nothing_left, started

DEFINITION = """
models:
  - name: web
    service:
      start_command: python3 -m http.server {port} --bind {host}
      health_check: {path: /, interval: 0.5, max_wait_time: 2, max_retries: 3}
"""


def test_a_folder_with_a_definition_file_is_served_by_real_processes(tmp_path: Path) -> None:
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "model-definition.yaml").write_text(DEFINITION)
    wanted = {
        "name": "web",
        "replicas": 2,
        "revision": {"variant": "custom", "model_folder": str(folder)},
    }
    file = tmp_path / "web.json"
    file.write_text(json.dumps(wanted))
    arguments = ("--provisioner", "process", "-f", str(file), "--for", "10", "--json")
    with started(*arguments) as (process, directory):
        out, err = process.communicate(timeout=10 + 2 * STOP_S)
        assert process.returncode == 0, err
        summary = json.loads(out)
        assert (summary["healthy"], summary["targets"], summary["rollouts"]) == (2, 2, 1)
        assert_nothing_left(directory)
