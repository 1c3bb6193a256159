# lib.sh: what the suites share. Sourced by `run`, which sets PATCHER, NAME, HERE, WORK (the suite's folder) and APT.
#
# A suite fetches tests, patches programs, defines `unit SIDE UNIT` and calls `compare UNIT...`. A unit is what is run at
# once: a test script, a module. `unit` runs it with the programs of SIDE (original or patched) and prints a line for each
# of its tests: name, a blank, result.

say() { echo "$NAME: $*" >&2; }

# Ends the suite with status 77, and says why.
skip() {
	say "skipped: $*"
	exit 77
}

fail() {
	say "failed: $*"
	exit 1
}

# ---- Getting things

# apt-get with lists of its own, source packages included; the machine's lists stay as they are.
apt() {
	local list
	if [[ ! -e $APT/ready ]]; then
		command -v apt-get >/dev/null || skip "this machine has no apt-get"
		mkdir -p "$APT/sources" "$APT/lists/partial" "$APT/archives/partial"
		for list in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
			[[ -f $list ]] || continue
			case $list in
			*.sources) sed 's/^Types:.*/Types: deb deb-src/' "$list" >"$APT/sources/${list##*/}" ;;
			*.list) sed -n 's/^deb \(.*\)/deb \1\ndeb-src \1/p' "$list" >"$APT/sources/${list##*/}" ;;
			esac
		done
		cat >"$APT/conf" <<-END
			Dir::Etc::sourcelist "-";
			Dir::Etc::sourceparts "$APT/sources";
			Dir::State::lists "$APT/lists";
			Dir::Cache "$APT";
			APT::Sandbox::User "root";
		END
		# Some archive on the machine may have no sources: what is lacking shows when it is asked for.
		APT_CONFIG=$APT/conf apt-get update >"$APT/log" 2>&1 || true
		ls "$APT"/lists/*_Sources* >/dev/null 2>&1 || skip "the archive's lists cannot be had: $(grep -m 1 '^[EW]:' "$APT/log")"
		touch "$APT/ready"
	fi
	APT_CONFIG=$APT/conf "$@"
}

# source_of PACKAGE FOLDER: its source, unpacked in FOLDER. The newest version that the archive still has.
source_of() {
	[[ -d $2 ]] && return
	local version
	need dpkg-source dpkg-dev
	mkdir -p "$WORK/fetched" && cd "$WORK/fetched"
	apt true
	for version in $(apt apt-cache showsrc "$1" 2>/dev/null | sed -n 's/^Version: //p' | sort -Vru); do
		rm -rf ./*/
		if apt apt-get source "$1=$version" >"$WORK/fetch.log" 2>&1; then
			mv ./*/ "$2"
			cd "$WORK"
			return
		fi
	done
	skip "no source of $1: $(grep -m 1 ^E: "$WORK/fetch.log" 2>/dev/null || echo "the archive has none")"
}

# files_of FOLDER PACKAGE...: the packages' files, unpacked below FOLDER, not installed.
files_of() {
	local folder=$1 package
	shift
	[[ -e $folder/.done ]] && return
	apt true
	rm -rf "$folder" && mkdir -p "$folder/.debs" && cd "$folder/.debs"
	apt apt-get download "$@" >"$WORK/fetch.log" 2>&1 || skip "$* cannot be fetched: $(grep -m 1 ^E: "$WORK/fetch.log")"
	for package in *.deb; do dpkg-deb -x "$package" ..; done
	cd "$WORK" && touch "$folder/.done"
}

# need PROGRAM|FILE PACKAGE...: installs the packages unless the program or file is there. No server is started.
need() {
	PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null && return
	[[ -e $1 ]] && return
	shift
	[[ $(id -u) == 0 ]] || skip "lacks $* (apt-get install $*)"
	apt true
	local policy=/usr/sbin/policy-rc.d made=''
	[[ -e $policy ]] || { made=1; printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"; }
	DEBIAN_FRONTEND=noninteractive apt apt-get install -y --no-install-recommends "$@" >"$WORK/fetch.log" 2>&1 </dev/null ||
		{ [[ $made ]] && rm "$policy"; skip "$* cannot be installed: $(tail -n 1 "$WORK/fetch.log")"; }
	[[ ! $made ]] || rm "$policy"
}

# ---- Patching

PATCHER_SUM=$(md5sum <"$PATCHER")

# patch_program IN OUT FLAG...: patches a program; a program that is refused fails the suite. What was made by the same
# patcher with the same flags stays.
patch_program() {
	local in=$1 out=$2 made note=$WORK/made/${2//\//%}
	shift 2
	mkdir -p "$(dirname "$out")" "$WORK/made"
	made=$(md5sum "$in"; printf '%s\n' "$PATCHER_SUM" "$@")
	if [[ ! -e $out || $made != "$(cat "$note" 2>/dev/null)" ]]; then
		timeout 600 "$PATCHER" "$@" "$in" "$out" 2>"$note.log" || { cat "$note.log" >&2; fail "$in cannot be patched"; }
		echo "$made" >"$note"
	fi
	[[ ${quiet:-} ]] || say "patched $in: $(sed -n 's/^[^:]*: \(.* allowed\), .*/\1/p;T;q' "$note.log"), flags: $(shorten "$*")"
}

shorten() { if ((${#1} > 200)); then echo "${1:0:200}... (${#1} characters)"; else echo "${1:-none}"; fi; }

# targets NAME...: flags for programs that a test executes, as far as they are there.
targets() {
	local path
	for path in "$@"; do
		path=$(type -P "$path") && echo "--exec-target=$(readlink -f "$path")"
	done
}

# ---- Running and comparing

# compare UNIT...: runs all units with original and patched programs, tries again where results differ, prints the table.
compare() {
	local unit running=0 pattern patterns chosen=()
	read -ra patterns <<<"${ONLY:-*}"
	for unit in "$@"; do
		for pattern in "${patterns[@]}"; do
			# shellcheck disable=SC2053
			if [[ $unit == $pattern ]]; then chosen+=("$unit") && break; fi
		done
	done
	set -- "${chosen[@]}"
	rm -rf "$WORK/results" "$WORK/logs"
	began=$(kernel_time)
	for unit in "$@"; do
		[[ ! -v left[$unit] ]] || continue
		while ((running >= ${JOBS:-${jobs:-2}})); do
			wait -n || true
			running=$((running - 1))
		done
		tried "$unit" &
		running=$((running + 1))
	done
	wait
	table "$@"
}

# left_out REASON UNIT...: units that the table shows as not run, with the reason, in place of `compare`'s results.
declare -A left=()
left_out() {
	local reason=$1 unit
	shift
	for unit in "$@"; do left[$unit]=$reason; done
}

# A unit whose results are not the same is run up to three times.
tried() {
	local try side unit=$1 name=${1//\//%}
	name=${name/#..%/up%}
	for try in 1 2 3; do
		for side in original patched; do
			mkdir -p "$WORK/results/$side/$try" "$WORK/logs/$side/$try"
			(unit "$side" "$unit" "$WORK/logs/$side/$try/$name" </dev/null || true) | sort -u >"$WORK/results/$side/$try/$name"
		done
		cmp -s "$WORK/results/original/$try/$name" "$WORK/results/patched/$try/$name" && break
	done || true
}

# A test is the same if the first results are; unsteady if a result of the patched program was also one of the original's;
# else different.
table() {
	cd "$WORK/results" || fail "no test ran"
	LC_ALL=C awk '
		{ split(FILENAME, part, "/"); name = $1; $1 = ""; sub(/^ /, ""); at = part[1] SUBSEP name SUBSEP part[2]
		  unit[name] = part[3]; seen[part[1], part[3], part[2]]; result[at] = at in result ? result[at] " and " $0 : $0 }
		END {
			for (name in unit) {
				first = shown("original", name, 1); other = shown("patched", name, 1)
				kind = first != other ? "different" : first == "-" ? "unsteady" : "same"
				for (a = 1; kind == "different" && a <= 3; a++) for (b = 1; b <= 3; b++)
					if (ran("original", name, a) && ran("patched", name, b) && shown("original", name, a) == shown("patched", name, b))
						kind = "unsteady"
				print kind "\t" name "\t" first "\t" other
			}
		}
		function ran(side, name, try) { return (side, unit[name], try) in seen }
		function shown(side, name, try) { return (side, name, try) in result ? result[side, name, try] : "-" }
	' */*/* | sort >"$WORK/table"
	local unit
	for unit in "${!left[@]}"; do say "not run: $unit: ${left[$unit]}"; done
	LC_ALL=C awk -F '\t' '{ split($3, word, " "); n[$1]++; if ($1 == "same") of[word[1]]++ }
		END {
			printf "%d tests: %d same, %d unsteady, %d different; the same are ", NR, n["same"], n["unsteady"], n["different"]
			for (r in of) printf "%s%d %s", (c++ ? ", " : ""), of[r], r
			print ""
		}' "$WORK/table" >"$WORK/summary"
	say "$# units, $(cat "$WORK/summary")"
	LC_ALL=C awk -F '\t' '$1 != "same" { if (n[$1]++ < 60) printf "  %-10s %s: original: %s; patched: %s\n", $1, $2, $3, $4; else more[$1]++ }
		END { for (kind in more) printf "  %-10s %d more\n", kind, more[kind] }' "$WORK/table" >&2
	refused_calls >"$WORK/refused"
	[[ ! -s $WORK/refused ]] || { say "calls refused (kernel log):" && cat "$WORK/refused" >&2; }
	say "table of all tests: $WORK/table, output: $WORK/logs"
	[[ -s $WORK/table ]] || fail "no test ran"
	! grep -q ^different "$WORK/table" && [[ ! -s $WORK/refused ]] || fail "results differ or calls were refused"
}

# scratch SIDE UNIT: an empty folder for a unit, with a short name of the same length on both sides, open to all.
scratch() {
	local folder
	folder=$WORK/run/${1:0:1}/$(cksum <<<"$2" | cut -d ' ' -f 1)
	rm -rf "$folder" && mkdir -p "$folder" && chmod 777 "$folder"
	echo "$folder"
}

# What makes a command run as an ordinary user, whom modes can refuse something.
as_user=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
[[ $(id -u) == 0 ]] || as_user=()

# alone SECONDS COMMAND...: runs a command with a network of its own, loopback only, and ends what it leaves behind.
alone() {
	local seconds=$1
	shift
	if unshare -n -p -f --mount-proc true 2>/dev/null && command -v ip >/dev/null; then
		set -- unshare -n -p -f --mount-proc --kill-child sh -c 'ip link set lo up; "$@"; exit $?' sh "$@"
	fi
	timeout -k 5 "$seconds" "$@"
}

kernel_time() { awk '{ print $1 }' /proc/uptime; }

# Calls that filters refused to programs below the suite's folder since it began, where the kernel's log can be read.
refused_calls() {
	local line='^\[ *\([0-9.]*\)\] audit: type=1326 .* comm="\([^"]*\)" exe="\([^"]*\)" .* syscall=\([0-9]*\) .*'
	{ dmesg 2>/dev/null || true; } | sed -n "s/$line/\1 \4 \2 \3/p" |
		awk -v began="$began" -v below="$WORK/" '
			$1 >= began && index($0, below) { n["  call " $2 " of " $3 " (" $4 ")"]++ }
			END { for (i in n) print i ": " n[i] " times" }'
}
