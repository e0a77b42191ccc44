# Two nodes on one machine for test_slurm.py: processes, networks and temporary files of their own. `unshare` gave this
# one its own; the second hangs on its cable. Environment: RIG, a folder of the test; SCRIPT; NODES.
set -euo pipefail
ip link set lo up
ip link add name first type veth peer name second
ip addr add 10.77.0.1/24 dev first
ip link set first up

mkdir -p "$RIG/second"
# Its first process says that it is there, and takes in whoever loses their parent.
mkfifo "$RIG/ready"
unshare --net --pid --fork --kill-child --mount-proc --mount \
    bash -c 'echo ready > "$RIG/ready"; while :; do sleep 1; done' &
read -r < "$RIG/ready"
SECOND=$(pgrep --parent $! | head -n 1)
export SECOND
ip link set second netns "$SECOND"
nsenter --target "$SECOND" --net ip link set lo up
nsenter --target "$SECOND" --net ip addr add 10.77.0.2/24 dev second
nsenter --target "$SECOND" --net ip link set second up
# Temporary files of the job are those of a node.
mkdir -p "/tmp/as-$SLURM_JOB_ID"
nsenter --target "$SECOND" --mount mount --bind "$RIG/second" "/tmp/as-$SLURM_JOB_ID"

code=0
bash "$SCRIPT" --model resnet18 --seed 3 || code=$?
exit "$code"
