"""`tcpa slurm`: scripts, and what they do with a SLURM and a Ray of a few lines."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import typer

from search import cli
from search.clusters.file_systems import why_not_shared
from search.clusters.slurm import BatchJob, batch_script, seconds_of
from search.clusters.words import option_words
from search.options import Where
from tcpa_core.errors import ConfigError
from tests.search.shell import check_shell

JOB = BatchJob(nodes=1, gpus_per_node=0, time="12:00:00")
NASTY = [
    "a b",
    "it's",
    '"',
    "$(touch gone)",
    "`touch gone`",
    "\\",
    "a\nb",
    "*",
    "ä€",
    ";",
    "-x",
    "",
]


def directives(script: str) -> list[str]:
    """What the script asks sbatch for: of comments up to the first command, as sbatch reads it."""
    head = script[: script.index("\nexport ")]
    return [line.removeprefix("#SBATCH ") for line in head.splitlines() if "#SBATCH" in line]


@pytest.mark.parametrize("nodes, gpus, cpus", [(1, 0, None), (4, 8, None), (64, 4, 32)])
def test_a_script_asks_for_what_was_asked_for(nodes: int, gpus: int, cpus: int | None) -> None:
    job = BatchJob(
        nodes=nodes, gpus_per_node=gpus, time="2-12", cpus_per_task=cpus,
        partition="gpu,long", account="proj.42", qos="high",
    )  # fmt: skip
    script = batch_script(job, "mine", ["tcpa", "search", "x"], Path("/shared/it's here"), None)
    check_shell(script)
    found = directives(script)
    assert found == [
        "--job-name=tcpa-mine",
        f"--nodes={nodes}",
        "--ntasks-per-node=1",
        *([f"--gpus-per-node={gpus}"] if gpus else []),
        *([f"--cpus-per-task={cpus}"] if cpus else []),
        "--partition=gpu,long",
        "--account=proj.42",
        "--qos=high",
        "--exclusive",
        "--mem=0",
        "--time=2-12",
        "--requeue",
        "--signal=B:USR1@300",
        "--no-kill",
        "--output=tcpa-mine-%j.log",
        "--open-mode=append",
    ]


TIMES = {
    "30": 1800,
    "12:30": 750,
    "01:00:00": 3600,
    "2-0": 172800,
    "1-2:3": 93780,
    "1-2:3:4": 93784,
}


@pytest.mark.parametrize("time", TIMES)
def test_times_are_read_as_sbatch_reads_them(time: str) -> None:
    assert seconds_of(time) == TIMES[time]
    assert BatchJob(nodes=1, gpus_per_node=0, time=time).warning_s <= TIMES[time] // 4


@pytest.mark.parametrize(
    "time", ["", "12h", "1:2:3:4", "-5", "UNLIMITED", "1-", "3\n", "٣٠", "1.5"]
)
def test_what_is_no_time_is_refused_with_an_example(time: str) -> None:
    with pytest.raises(ConfigError, match="--time must be as of sbatch .* for example 12:00:00"):
        BatchJob(nodes=1, gpus_per_node=0, time=time)


@pytest.mark.parametrize("time", ["0", "3", "00:01:00"])
def test_a_job_is_long_enough_to_stop_in(time: str) -> None:
    with pytest.raises(ConfigError, match=f"at least 4 minutes, got '{time}'"):
        BatchJob(nodes=1, gpus_per_node=0, time=time)


@pytest.mark.parametrize("option", ["partition", "account", "qos"])
@pytest.mark.parametrize("value", ["a b", "x\n#SBATCH --wrap=id", "$(id)", "", "'x'", "a;b", "#"])
def test_nothing_enters_a_comment_line_that_could_leave_it(option: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"--{option} must be a name"):
        BatchJob(nodes=1, gpus_per_node=0, time="60", **{option: value})  # type: ignore[arg-type]


def test_every_word_of_the_command_arrives_as_it_was_given() -> None:
    script = batch_script(JOB, "s", NASTY, Path("/x"), Path("/a 'b"))
    check_shell(script)
    head = script[script.index("COMMAND=(") : script.index("# Every node runs")]
    shown = 'printf "%s\\0" "${COMMAND[@]}" "$FOLDER" "$CACHE"'
    done = subprocess.run(["bash", "-uc", head + shown], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == [*NASTY, "/x", "/a 'b"]


def other(field: Any) -> Any:
    """A value of an option of `Where` that is not its default, and that goes with all others."""
    known: dict[str, Any] = {
        "device": "cuda", "workers": 3, "gpus_per_worker": 0.5, "storage": "s3://bucket/a b",
        "cache_dir": Path("/scratch/it's"), "ship_data": True,
    }  # fmt: skip
    return known[field.name]


def test_every_option_of_where_is_handed_on() -> None:
    """Also one that is added to `Where` later: it needs a value above."""
    chosen = {one.name: other(one) for one in fields(Where) if one.name != "address"}
    words = list(option_words(Where(**chosen)))
    search = typer.main.get_command(cli.app).commands["search"]  # type: ignore[attr-defined]
    parsed = search.make_context("search", ["x.yaml", *words]).params
    assert {name: parsed[name] for name in chosen} == chosen
    assert not list(option_words(Where()))


SPACE = """
name: small
base: {methods: [linear], data: {name: folder, root: pictures}, backbone.name: vit_nano}
axes: {optim.lr: {choice: [0.1, 0.2]}}
budget: {trials: 4}
"""
ASKED = ["--nodes", "2", "--gpus-per-node", "8", "--time", "12:00:00"]


def command_of(script: str) -> list[str]:
    lines = script[script.index("COMMAND=(") + 9 : script.index("\n)\nFOLDER=")]
    return shlex.split(lines)


def test_a_printed_script_names_files_from_the_root(typed: Any, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    code, script, said = typed(
        "slurm", "space.yaml", *ASKED, "--root", "studies", "--trials", "8", "--workers", "16",
        "--set", "data.root=other pictures", "--set", "optim.weight_decay=0.1",
    )  # fmt: skip
    assert code == 0, said
    check_shell(script)
    assert command_of(script) == [
        "tcpa", "search", str(tmp_path / "space.yaml"), "--resume", "--study=small",
        f"--root={tmp_path}/studies", f"--set=data.root={tmp_path}/other pictures",
        "--set=optim.weight_decay=0.1", "--trials=8", "--workers=16",
    ]  # fmt: skip
    assert str(Path(sys.executable).parent) in script


def test_a_job_without_gpus_waits_for_none(typed: Any) -> None:
    asked = ["--nodes", "2", "--time", "60"]
    assert command_of(typed("slurm", "quickstart", *asked)[1])[-1] == "--device=cpu"
    assert command_of(typed("slurm", "quickstart", *ASKED)[1])[-1].startswith("--root=")


def test_a_cache_of_the_user_is_one_of_the_nodes_and_is_kept(typed: Any, slurm: "Slurm") -> None:
    """Its variables are those of the nodes, and this machine makes no such folder."""
    code, script, said = typed("slurm", "quickstart", *ASKED, "--cache-dir", "$SCRATCH/it's")
    assert code == 0 and "--cache-dir" not in command_of(script), said
    check_shell(script)
    assert not list(slurm.folder.glob("*SCRATCH*"))
    assert slurm.run(edits={"CACHE": f"{slurm.folder}/mine"}, CODE="0")[0] == 0
    assert len(slurm.calls("srun")) == 1 and (slurm.folder / "mine").is_dir()


def test_a_comparison_keeps_its_seeds(typed: Any) -> None:
    code, script, said = typed(
        "slurm", "all_methods", *ASKED, "--verb", "compare", "--seeds", "3", "--root", "/r",
        "--study", "fair", "--set", "data.name=digits",
    )  # fmt: skip
    assert code == 0, said
    words = command_of(script)
    assert words[:6] == ["tcpa", "compare", "all_methods", "--resume", "--study=fair", "--root=/r"]
    assert words[-2:] == ["--set=data.name=digits", "--seeds=3"]


def test_secrets_of_a_tracker_are_not_written(typed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "restart_without_secrets", lambda: None)
    uri = "http://me:swordfish@tracker:5000"
    code, script, said = typed("slurm", "quickstart", *ASKED, "--tracking-uri", uri)
    assert code == 0 and "swordfish" not in script + said
    assert "--tracking-uri=http://tracker:5000" in command_of(script)
    assert "MLFLOW_TRACKING_URI" in said


WRONG = {
    "a space that is none": (["nowhere.yaml", *ASKED], "no file and no preset 'nowhere.yaml'"),
    "one of the other kind": (["tcpa_components", *ASKED], "is an ablation"),
    "a wrong setting": (["quickstart", *ASKED, "--set", "optim.lr=fast"], "optim.lr"),
    "a name that is none": (["quickstart", *ASKED, "--study", "../x"], "study name must be"),
    "no nodes": (["quickstart", "--nodes", "0", "--time", "60"], "'--nodes'"),
    "no time": (["quickstart", "--nodes", "1"], "'--time'"),
    "a cluster": (["quickstart", *ASKED, "--address", "auto"], "--address: the job starts"),
    "a root elsewhere": (["quickstart", *ASKED, "--root", "s3://b/x"], "--root"),
    "contradicting options": (
        ["quickstart", *ASKED, "--device", "cpu", "--gpus-per-worker", "0.5"], "--gpus-per-worker",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_prints_no_script(case: str, typed: Any, tmp_path: Path) -> None:
    words, expected = WRONG[case]
    code, script, said = typed("slurm", *words, "--out", "job.sh")
    assert (code, script) == (2, "") and expected in said, said
    assert not list(tmp_path.iterdir())


def test_a_file_of_the_user_is_not_overwritten(typed: Any, tmp_path: Path) -> None:
    words = ("slurm", "quickstart", *ASKED, "--out", "my job.sh")
    assert typed(*words)[:2] == (0, "Submit with: sbatch 'my job.sh'\n")
    assert typed(*words)[0] == 0  # the same text
    (tmp_path / "my job.sh").write_text("mine")
    code, _, said = typed(*words)
    assert code == 2 and "is there with another text" in said
    assert (tmp_path / "my job.sh").read_text() == "mine"


def test_a_root_that_other_nodes_hardly_see_is_named(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        "30 22 0:40 / /home rw shared:1 - nfs4 server:/home rw\n"
        "31 30 0:41 / /home/me/fast\\040disk rw shared:1 - xfs /dev/sdb rw\n"
    )
    assert why_not_shared(Path("/var/studies"), table) == "ext4 of this machine"
    assert why_not_shared(Path("/home/me/studies"), table) == ""
    assert why_not_shared(Path("/home/me/fast disk/x"), table) == "xfs of this machine"
    assert why_not_shared(Path("/homes"), table) == "ext4 of this machine"
    assert why_not_shared(Path("/var"), tmp_path / "none") == ""


SRUN = """#!/bin/bash
# All tasks on this machine.
printf '%s\\0' "$@" $'\\n' >> srun.calls
while [[ $1 == --* ]]; do shift; done
for ((i = 0; i < ${TASKS:-1}; i++)); do
  SLURM_PROCID=$i SLURMD_NODENAME=node$i "$@" & tasks+=($!)
done
for task in "${tasks[@]}"; do wait "$task" || code=$?; done
exit ${code:-0}
"""
SCONTROL = """#!/bin/bash
case "$1 $2" in
"show hostnames") echo node0;;
"show job") echo "JobState=${JOB_STATE:-RUNNING}";;
requeue*) echo "$2" >> requeues; exit ${REQUEUE_CODE:-0};;
esac
"""
GETENT = """#!/bin/bash
echo "${ADDRESS-127.0.1.1 node0}"
echo "${ADDRESS-10.1.2.3 node0}"
"""
RAY = """#!/bin/bash
# ray symmetric-run OPTIONS -- COMMAND: as on the head, and with the code of the command.
printf '%s\\0' "$@" $'\\n' >> ray.calls
[ -z "${RAY_FAILS:-}" ] || exit 0
echo "$RAY_AUTH_MODE $(stat -c %a "$RAY_AUTH_TOKEN_PATH") $(<"$RAY_AUTH_TOKEN_PATH")" > token
while [ "$1" != -- ]; do shift; done
shift; "$@"
"""
PGREP = """#!/bin/bash
# None: but a name that is longer than 15 characters, or a pattern, is never found.
[ "$3" = -x ] && [[ $4 =~ ^[a-z_]{1,15}$ ]] || touch wrong-pattern
exit 1
"""
TCPA = """#!/usr/bin/env python3
# Ends with $CODE, or, where it has to wait, with 3 when it is told to stop.
import os, signal, sys, time
stopped = []
def stop(*_):
    stopped.append(1)
time.sleep(float(os.environ.get("LOADS_S", 0)))
signal.signal(signal.SIGUSR1, stop)
open("tcpa.calls", "a").write(repr(sys.argv[1:]) + "\\n")
os.makedirs(sys.argv[sys.argv.index("--cache-dir") + 1], exist_ok=True)
while "CODE" not in os.environ and not stopped:
    time.sleep(0.05)
sys.exit(int(os.environ.get("CODE", 3)))
"""


NO_EDITS: Mapping[str, str] = {}


@dataclass
class Slurm:
    """A folder with a script, and with a SLURM, a Ray and a `tcpa` that only take notes."""

    folder: Path

    def __post_init__(self) -> None:
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        texts = {"srun": SRUN, "scontrol": SCONTROL, "getent": GETENT, "ray": RAY, "tcpa": TCPA}
        texts["pgrep"] = PGREP  # whatever else runs on this machine
        for name, text in texts.items():
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)

    @contextmanager
    def running(
        self, job: BatchJob = JOB, edits: Mapping[str, str] = NO_EDITS, **env: str
    ) -> Iterator[subprocess.Popen[str]]:
        """The script, submitted after a user has edited lines of it."""
        words = ["tcpa", "search", "it's"]
        script = batch_script(job, "study", words, self.folder / "studies", None)
        line = next(one for one in script.splitlines() if one.startswith("export PATH="))
        script = script.replace(line, "")
        for name, value in edits.items():
            script = re.sub(f"^{name}= ", f"{name}={value} ", script, flags=re.M)
        (self.folder / "job.sh").write_text(script)
        given = {
            "SLURM_JOB_ID": "31234567", "SLURM_JOB_NUM_NODES": str(job.nodes),
            "SLURM_JOB_NODELIST": "node[0-1]", "SLURM_TMPDIR": str(self.folder / "disk"),
        }  # fmt: skip
        process = subprocess.Popen(
            ["bash", "job.sh"],
            cwd=self.folder,
            env={"PATH": f"{self.bin}:{os.environ['PATH']}", "HOME": "/x", **given, **env},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()

    def run(
        self, job: BatchJob = JOB, edits: Mapping[str, str] = NO_EDITS, **env: str
    ) -> tuple[int, str]:
        """Run the script to its end; exit code and stderr."""
        with self.running(job, edits, **env) as process:
            _, said = process.communicate(timeout=120)
        return process.returncode, said

    def calls(self, program: str) -> list[list[str]]:
        """Words of every call of a program."""
        file = self.folder / f"{program}.calls"
        text = file.read_text() if file.exists() else ""
        return [call.split("\0")[:-1] for call in text.split("\n\0")[:-1]]

    @property
    def requeued(self) -> bool:
        """Whether the job has asked for it."""
        return (self.folder / "requeues").exists()


@pytest.fixture
def slurm(tmp_path: Path) -> Slurm:
    return Slurm(tmp_path)


def test_every_line_that_srun_is_given(slurm: Slurm) -> None:
    job = BatchJob(nodes=2, gpus_per_node=8, time="60", cpus_per_task=16)
    code, said = slurm.run(job, CODE="0")
    assert (code, said) == (0, "")
    everywhere = ["--nodes=2", "--ntasks-per-node=1", "--kill-on-bad-exit=0", "--wait=0"]
    cache = f"{slurm.folder}/disk/tcpa-{os.environ.get('USER', '')}"
    step, clean = slurm.calls("srun")
    options, command = step[: step.index("bash")], step[step.index("bash") :]
    assert options == [*everywhere, "--no-kill", "--label", "--cpu-bind=none", "--cpus-per-task=16"]
    assert command[:2] == ["bash", "-c"]
    head, port, control, where, *rest = command[4:]
    assert (head, port) == ("10.1.2.3", "24567")  # of the number of the job
    assert control.startswith(f"{slurm.folder}/studies/.tcpa-job-31234567-")
    assert where.startswith(f"{slurm.folder}/disk/tcpa-") and where.endswith("-31234567"), cache
    assert rest == ["16", "8", "150", "tcpa", "search", "it's"]
    assert clean == [*everywhere, "rm", "-rf", "--", where]

    (ray,) = slurm.calls("ray")
    words = ["bash", "-c", ': >"$0"; exec "$@"', f"{control}/ran", "tcpa", "search", "it's"]
    assert ray == [
        "symmetric-run", "--address", "10.1.2.3:24567", "--num-cpus=16", "--num-gpus=8", "--",
        *words, "--address", "10.1.2.3:24567", "--cache-dir", where,
    ]  # fmt: skip
    mode, rights, token = (slurm.folder / "token").read_text().split()
    assert (mode, rights, len(token)) == ("token", "600", 64)
    assert not any(token in word for call in slurm.calls("srun") for word in call)
    # Nothing is left: neither the token nor images.
    assert list((slurm.folder / "studies").iterdir()) == []
    assert list((slurm.folder / "disk").iterdir()) == []
    assert not (slurm.folder / "wrong-pattern").exists()


def test_exit_codes_decide_what_becomes_of_the_job(slurm: Slurm) -> None:
    """0 is done; 3 goes on in a new turn; 1 and 2 would end in the same way again."""
    for code in (1, 2, 139):
        assert slurm.run(CODE=str(code))[0] == code
    assert not slurm.requeued
    code, said = slurm.run(CODE="3")
    assert code == 3 and "stopped and requeued" in said
    assert (slurm.folder / "requeues").read_text() == "31234567\n"


@pytest.mark.parametrize(
    "env, told",
    [
        ({"JOB_STATE": "CANCELLED"}, "ended by SLURM"),
        ({"SLURM_RESTART_COUNT": "50"}, "after 50 requeues"),
        ({"REQUEUE_CODE": "1"}, "SLURM does not requeue it; submit this script again"),
    ],
)
def test_a_job_that_cannot_go_on_says_so(slurm: Slurm, env: dict[str, str], told: str) -> None:
    code, said = slurm.run(CODE="3", **env)
    assert code == 3 and told in said, said
    assert slurm.requeued == ("REQUEUE_CODE" in env)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_to_the_batch_shell_stops_the_study_and_requeues_the_job(
    slurm: Slurm, number: signal.Signals
) -> None:
    """Also one that comes while the command is still loading and does not listen."""
    with slurm.running(LOADS_S="2") as process:
        while not slurm.calls("ray"):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 3, said
    assert "asks the study to stop" in said and slurm.requeued
    assert len((slurm.folder / "tcpa.calls").read_text().splitlines()) == 1


def test_a_study_that_outlives_its_srun_is_waited_for(slurm: Slurm) -> None:
    with slurm.running() as process:
        while not (slurm.folder / "tcpa.calls").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        subprocess.run(["pkill", "-KILL", "-P", str(process.pid), "-f", "/srun"], check=True)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 3 and slurm.requeued, said


@pytest.mark.parametrize("name", ["SLURM_ARRAY_JOB_ID", "SLURM_HET_SIZE"])
def test_jobs_that_would_run_one_study_several_times_are_refused(slurm: Slurm, name: str) -> None:
    code, said = slurm.run(**{name: "2"})
    assert code == 2 and f"{name} is set" in said and not slurm.calls("srun")


def test_a_script_outside_of_slurm_says_how_it_is_submitted(slurm: Slurm) -> None:
    code, said = slurm.run(SLURM_JOB_ID="")
    assert code == 2 and "sbatch job.sh" in said


def test_a_head_without_an_address_is_refused(slurm: Slurm) -> None:
    code, said = slurm.run(ADDRESS="127.0.1.1 node0", SLURMD_NODENAME="node7")
    assert code == 2 and "no address of the node 'node0' is known; set HEAD=ADDRESS" in said


def test_a_ray_that_does_not_start_is_no_success(slurm: Slurm) -> None:
    code, said = slurm.run(RAY_FAILS="1", CODE="0")
    assert code == 1 and "Ray did not start on node0" in said


def test_a_node_without_the_programs_is_named(slurm: Slurm) -> None:
    (slurm.bin / "ray").unlink()
    path = f"{slurm.bin}:/usr/bin:/bin"
    if shutil.which("ray", path=path):
        pytest.skip("another Ray is installed for all users")
    code, said = slurm.run(PATH=path)
    assert code == 2 and "node0 finds no 'ray'; edit the lines at the top" in said


RAY_OF_TWO = """#!/usr/bin/env python3
# As on the first node it listens as long as the command runs; on the others it is a node for 0.5 s.
import os, socket, subprocess, sys, time
words = sys.argv[sys.argv.index("--") + 1 :]
with open("nodes", "a") as nodes:
    nodes.write(os.environ["SLURM_PROCID"])
if os.environ["SLURM_PROCID"] == "0":
    time.sleep(1)  # a head takes its time, in which the others wait
    with socket.create_server(("127.0.0.1", int(sys.argv[3].rpartition(":")[2]))):
        sys.exit(subprocess.call(words))
time.sleep(0.5)
"""


def test_other_nodes_wait_for_the_head_join_it_again_and_leave_with_it(slurm: Slurm) -> None:
    (slurm.bin / "ray").write_text(RAY_OF_TWO)
    job = BatchJob(nodes=2, gpus_per_node=0, time="60")
    joined = slurm.folder / "nodes"
    env = {"TASKS": "2", "SLURM_JOB_ID": str(os.getpid())}
    with slurm.running(job, {"HEAD": "127.0.0.1"}, **env) as process:
        while not joined.exists() or joined.read_text().count("1") < 2:
            assert process.poll() is None
            time.sleep(0.05)
        assert joined.read_text()[0] == "0"
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 3 and slurm.requeued, said
