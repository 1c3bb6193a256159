#!/bin/bash
# podman.sh FOLDER PROGRAM PROFILE NUMBER...: for each number, runs `PROGRAM syscall NUMBER` in a container of podman, PROFILE
# being its seccomp profile, and writes the exit status to FOLDER/NUMBER.status, the output to FOLDER/NUMBER.out.
# Without PROFILE (empty) the container has no filter. Podman's files are in FOLDER.
#
# Control groups of version 2 are mounted for podman alone: crun refuses those of both versions side by side, and needs
# none for a container without limits.
set -euo pipefail
if [[ ${1-} != --inside ]]; then exec unshare --mount --propagation private bash "$0" --inside "$@"; fi
shift
folder=$1 program=$2 profile=$3
shift 3
if mountpoint -q /sys/fs/cgroup; then umount -R /sys/fs/cgroup; fi
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p "$folder"
podman() {
	command podman --root "$folder/storage" --runroot "$folder/run" --tmpdir "$folder/tmp" --storage-driver vfs \
		--cgroup-manager cgroupfs --runtime crun "$@"
}
tar -C "$(dirname "$program")" --transform 's/.*/program/' -c "$(basename "$program")" | podman import - localhost/program >/dev/null 2>&1
for number in "$@"; do
	status=0
	podman run --rm --network none --cgroups disabled --log-driver none --ulimit nofile=256:256 --ulimit nproc=256:256 \
		--security-opt no-new-privileges --security-opt "seccomp=${profile:-unconfined}" \
		localhost/program /program syscall "$number" >"$folder/$number.out" 2>"$folder/$number.err" || status=$?
	echo $status >"$folder/$number.status"
done
