# Every node runs `on_node`. The first one becomes the head of a Ray cluster and runs COMMAND there;
# the others join it as they come, and once more where they lose it. The batch shell asks for an
# orderly stop and is told the exit code by files in CONTROL, so no signal has to pass through srun.

say() { echo "tcpa job ${SLURM_JOB_ID:-?}: $*" >&2; }

answers() { # HOST PORT
  timeout -s KILL 5 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>/dev/null
}

on_node() { # HEAD PORT CONTROL CACHE CPUS GPUS GRACE_S COMMAND...
  local head=$1 port=$2 control=$3 cache=$4 cpus=$5 gpus=$6 grace=$7
  shift 7
  local code name node ray since
  node=${SLURMD_NODENAME:-$(hostname)}
  # What is started below inherits this: when SLURM signals a whole job, `ray symmetric-run` stays
  # until the command has ended in order. The command itself takes both signals up again.
  trap '' USR1 TERM
  end_head() { echo "$1" >"$control/code.part" && mv "$control/code.part" "$control/code"; exit "$1"; }
  leave() { # WHY
    say "$node $1"
    [ "${SLURM_PROCID:-0}" != 0 ] || end_head 2
    exit 0
  }
  for name in ray tcpa pkill; do
    command -v "$name" >/dev/null || leave "finds no '$name'; edit the lines at the top of this script"
  done
  [ -r "$control/token" ] || leave "cannot read $control/token; all nodes have to share that folder"
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$control/token"
  export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=120 RAY_USAGE_STATS_ENABLED=0
  export PYTHONUNBUFFERED=1
  unset RAY_ADDRESS
  local start=(ray symmetric-run --address "$head:$port" "--num-cpus=${cpus:-${SLURM_CPUS_ON_NODE:-$(nproc)}}"
    "--num-gpus=$gpus")

  if [ "${SLURM_PROCID:-0}" != 0 ]; then
    since=$SECONDS
    until answers "$head" "$port"; do
      if ((SECONDS - since > 300)); then
        say "$node found no head at $head:$port in 300 s and leaves; see the lines of the first node"
        exit 0
      fi
      sleep 1
    done
    while answers "$head" "$port"; do
      "${start[@]}" -- true || true
      sleep 2
    done
    exit 0
  fi

  # A Ray of the same user that is still ending, as after a requeue: symmetric-run would refuse.
  for _ in {1..90}; do
    pgrep -u "$(id -u)" -x raylet >/dev/null || break
    sleep 1
  done
  # The file tells a command that ended well from a Ray that did not start: 0 is the code of both.
  "${start[@]}" -- bash -c ': >"$0"; exec "$@"' "$control/ran" "$@" \
    --address "$head:$port" --cache-dir "$cache" &
  ray=$!
  since=''
  while kill -0 "$ray" 2>/dev/null; do
    if [ -e "$control/stop" ]; then
      since=${since:-$SECONDS}
      # Only children of symmetric-run: the command, or `ray start`, which does not listen. A command
      # that is still loading does not either, so it is told again.
      if ((SECONDS - since < grace)); then pkill -USR1 -P "$ray"; else pkill -KILL -P "$ray"; fi
    fi
    sleep 1
  done
  wait "$ray"
  code=$?
  if [ "$code" = 0 ] && [ ! -e "$control/ran" ]; then
    say "Ray did not start on $node, the first node; see above, and submit this script again"
    code=1
  fi
  end_head "$code"
}

for name in SLURM_ARRAY_JOB_ID SLURM_HET_SIZE; do
  if [ -n "${!name:-}" ]; then
    say "$name is set: tasks of an array and parts of a heterogeneous job would all run one study;" \
      "submit without --array, as one job"
    exit 2
  fi
done
if [ -z "${SLURM_JOB_ID:-}" ] || [ -z "${SLURM_JOB_NODELIST:-}" ]; then
  say "this is a SLURM job; submit it with: sbatch $0"
  exit 2
fi

FIRST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Ray's head compares an address with those of its interfaces; a node's own name may mean 127.0.1.1.
HEAD=${HEAD:-$(getent ahostsv4 "$FIRST" | awk '$1 !~ /^127\./ {print $1; exit}')}
if [ -z "$HEAD" ] && [ "${SLURMD_NODENAME:-$(hostname)}" = "$FIRST" ]; then
  HEAD=$(hostname -I | awk '{print $1}')
fi
if [ -z "$HEAD" ]; then
  say "no address of the node '$FIRST' is known; set HEAD=ADDRESS at the top of this script"
  exit 2
fi
PORT=$((20000 + SLURM_JOB_ID % 10000))
OWN_CACHE=${CACHE:+no}
CACHE=${CACHE:-${SLURM_TMPDIR:-/tmp}/tcpa-$(id -un)-$SLURM_JOB_ID}
CONTROL=$FOLDER/.tcpa-job-$SLURM_JOB_ID-$$

if ! mkdir -p "$FOLDER" || ! mkdir -m 700 "$CONTROL"; then
  say "$FOLDER cannot be written"
  exit 2
fi
trap 'rm -rf -- "$CONTROL"' EXIT
umask 077
od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$CONTROL/token"
umask 022

asked='' interrupted=''
ask() {
  asked=1 interrupted=1
  say "asks the study to stop; it is requeued"
  : >"$CONTROL/stop"
}
trap ask USR1 TERM

ON_ALL=(srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=0)

"${ON_ALL[@]}" --no-kill --label --cpu-bind=none ${CPUS:+"--cpus-per-task=$CPUS"} \
  bash -c "$(declare -f say answers on_node); on_node \"\$@\"" \
  on_node "$HEAD" "$PORT" "$CONTROL" "$CACHE" "$CPUS" "$GPUS" "$GRACE_S" "${COMMAND[@]}" &
STEP=$!
wait "$STEP"
status=$?
while [ -n "$interrupted" ]; do # a signal ends `wait`, not the step
  interrupted=''
  wait "$STEP"
  status=$?
done
trap '' USR1 TERM
# An srun that was killed says nothing of the study: what runs on the first node does.
for ((i = 0; i < GRACE_S && status > 128; i++)); do
  [ ! -e "$CONTROL/code" ] || break
  sleep 1
done
if [ -s "$CONTROL/code" ]; then status=$(<"$CONTROL/code"); fi
[ -n "$OWN_CACHE" ] || "${ON_ALL[@]}" rm -rf -- "$CACHE"

if [ "$status" = 3 ] || { [ -n "$asked" ] && [ "$status" -gt 128 ]; }; then
  if scontrol show job "$SLURM_JOB_ID" 2>/dev/null | grep -Eq 'JobState=(CANCELLED|COMPLETING|PREEMPTED)'; then
    say "stopped, and ended by SLURM, which requeues it where it preempted it; else go on with: sbatch $0"
  elif ((${SLURM_RESTART_COUNT:-0} >= MAX_REQUEUES)); then
    say "stopped after $MAX_REQUEUES requeues; if all is well, submit this script again"
  elif scontrol requeue "$SLURM_JOB_ID"; then
    say "stopped and requeued; it goes on where it was"
  else
    say "stopped, and SLURM does not requeue it; submit this script again to go on"
  fi
elif [ "$status" != 0 ]; then
  say "ended with exit code $status; what to do stands above"
fi
exit "$status"
