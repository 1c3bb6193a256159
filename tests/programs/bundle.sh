#!/bin/bash
# bundle.sh FOLDER PROGRAM PROFILE ARGS...: runs PROGRAM with ARGS in a container of runc, PROFILE (may be empty) being its
# linux.seccomp. The rest of the bundle is what runc itself proposes.
set -euo pipefail
folder=$1 program=$2 profile=$3
shift 3
mkdir -p "$folder/rootfs/proc" "$folder/rootfs/dev" "$folder/rootfs/sys"
cp "$program" "$folder/rootfs/program"
cd "$folder"
runc spec
python3 - "$profile" "$@" <<'EOF'
import json, sys
config = json.load(open("config.json"))
config["process"].update(terminal=False, args=["/program", *sys.argv[2:]], noNewPrivileges=True)
config["linux"].pop("resources", None)
config["linux"]["namespaces"] = [space for space in config["linux"]["namespaces"] if space["type"] != "cgroup"]
if sys.argv[1]:
    config["linux"]["seccomp"] = json.load(open(sys.argv[1]))
json.dump(config, open("config.json", "w"))
EOF
exec runc --root "$folder/state" run "chestnut-$$"
