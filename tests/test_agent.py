"""The prober is a process without Django, so it is looked at from outside. Whole journeys are in tests/journeys."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(code: str, tmp_path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    environ = {"PYTHONPATH": str(ROOT), "HEALTHMON_DATA_DIR": str(tmp_path)} | environ
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_imports_nothing_that_a_prober_may_not_know(tmp_path):
    code = (
        "import sys, healthmon.agent as agent\n"
        "agent.app.loader.init_worker()\n"
        "agent.app.finalize()\n"
        "known = {'django', 'rest_framework', 'psycopg', 'requests', 'monitors.models'} & set(sys.modules)\n"
        "sys.exit(f'imported: {known}' if known else 0)"
    )
    finished = run(code, tmp_path)
    assert finished.returncode == 0, finished.stderr


def test_registers_its_one_task_in_a_pool_of_threads(tmp_path):
    code = (
        "from healthmon.agent import app\n"
        "assert [name for name in app.tasks if not name.startswith('celery.')] == ['monitors.probe']\n"
        "assert app.conf.worker_pool == 'threads'"
    )
    finished = run(code, tmp_path)
    assert finished.returncode == 0, finished.stderr


def test_stops_with_one_sentence_when_its_environment_is_nonsense(tmp_path):
    finished = run("import healthmon.agent", tmp_path, HEALTHMON_ALLOWED_NETS="everywhere")
    assert finished.returncode == 1
    assert finished.stderr.startswith("HEALTHMON_ALLOWED_NETS has 'everywhere'")
    assert finished.stderr.count("\n") == 1


def test_ends_the_process_when_the_loop_has_died(tmp_path):
    code = (
        "import time, healthmon.agent as agent\n"
        "prober = agent.Prober(agent.SETTINGS)\n"
        "prober._loop._turn = None\n"  # what a bug in the loop would look like
        "prober._loop._ring()\n"
        "time.sleep(30)"
    )
    finished = run(code, tmp_path)
    assert finished.returncode == 70
    assert "probing loop" in finished.stderr + finished.stdout


def test_leaves_out_targets_that_it_does_not_understand(tmp_path):
    code = (
        "import healthmon.agent as agent\n"
        "from monitors.probing.outcome import Target\n"
        "class Prober:\n"
        "    taken = []\n"
        "    def take(self, targets):\n"
        "        self.taken += targets\n"
        "        return True\n"
        "agent._running.append(Prober())\n"
        "good = Target(7, 'eu', 100, 130, 'http://a.example/')\n"
        "agent.probe(targets=[{'monitor_id': 1}, good.to_wire(), [1, 2], None])\n"
        "assert Prober.taken == [good], Prober.taken"
    )
    finished = run(code, tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("target not understood") == 3, finished.stdout
