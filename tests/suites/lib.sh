# lib.sh: what the suites share. Sourced by tests/suites/run, which sets PATCHER, WORK and NAME.
#
# A suite runs a program's own upstream tests twice, with the original and with the patched program in its place, and
# writes one line for each test to a table: its name and its result. The two tables must be the same.

say() { echo "$NAME: $*" >&2; }

# Ends the suite with status 77, and says why.
skip() {
	say "skipped: $*"
	exit 77
}

# need PROGRAM PACKAGE...: installs the packages unless the program is there.
need() {
	local program=$1
	shift
	PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null && return
	install "$@"
}

install() {
	command -v apt-get >/dev/null || skip "this machine has no apt-get; needed: $*"
	DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >"$WORK/install.log" 2>&1 ||
		skip "$* cannot be installed: $(tail -n 1 "$WORK/install.log")"
}

# unpack PACKAGE FOLDER: the Debian source package, unpacked in FOLDER.
unpack() {
	[[ -d $2 ]] && return
	need dpkg-source dpkg-dev
	if ! apt-get source --print-uris "$1" >/dev/null 2>&1; then
		local list=/etc/apt/sources.list.d/chestnut-suites
		sed 's/^Types: deb$/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >"$list.sources" 2>/dev/null || rm -f "$list.sources"
		sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >"$list.list" 2>/dev/null || rm -f "$list.list"
		apt-get update >"$WORK/install.log" 2>&1 || skip "no list of source packages: $(tail -n 1 "$WORK/install.log")"
	fi
	(cd "$WORK" && apt-get source "$1" >"$WORK/source.log" 2>&1) || skip "no source of $1: $(tail -n 1 "$WORK/source.log")"
	mv "$WORK/$1"-*/ "$2"
}

# patch IN OUT FLAG...: patches a program.
patch_program() {
	local in=$1 out=$2
	shift 2
	"$PATCHER" "$@" "$in" "$out" 2>"$out.log" || { cat "$out.log" >&2; say "$in cannot be patched"; exit 1; }
}

# Targets of executions for a program that a test suite drives: what its tests start, where it is there.
targets() {
	local path
	for path in "$@"; do
		path=$(command -v "$path") && echo "--exec-target=$(readlink -f "$path")"
	done
}

# compare ORIGINAL PATCHED: both tables; differences are failures.
compare() {
	local tests
	tests=$(wc -l <"$1")
	[[ $tests -gt 0 ]] || { say "no test ran"; exit 1; }
	if diff "$1" "$2" >"$WORK/difference"; then
		say "$tests tests, the same results as the original's ($(awk '{ print $NF }' "$1" | sort | uniq -c | xargs))"
	else
		say "results differ (< original, > patched):"
		cat "$WORK/difference" >&2
		exit 1
	fi
}
