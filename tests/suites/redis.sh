# Redis' own tests (source package redis: runtest and runtest-moduleapi) on the server and the tools of packages
# redis-server and redis-tools.
#
# Flags: `DEBUG RESTART` executes the server itself; the modules that tests load are named, as a redis.conf would.
need /usr/bin/redis-server redis-server
need /usr/bin/redis-cli redis-tools
need tclsh tcl8.6
need gcc gcc libc6-dev
need make make
need ip iproute2
source_of redis "$WORK/source"
source=$WORK/source
make -C "$source/tests/modules" >"$WORK/build.log" 2>&1 || skip "the tests' modules do not build: $(tail -n 1 "$WORK/build.log")"
for program in server cli benchmark check-aof check-rdb; do
	flags=()
	[[ $program == cli || $program == benchmark ]] || flags=(--exec-target self --dlopen "$source/tests/modules/*.so")
	mkdir -p "$WORK/original"
	cp --remove-destination -L "/usr/bin/redis-$program" "$WORK/original/redis-$program"
	patch_program "$WORK/original/redis-$program" "$WORK/patched/redis-$program" "${flags[@]}"
done

unit() {
	local run log=$3 status=0
	run=$(scratch "$1" "$2") && mkdir "$run/src"
	cp -a "$source/runtest" "$source/tests" "$source/utils" "$source/redis.conf" "$source/sentinel.conf" "$run"
	cp "$WORK/$1"/redis-* "$run/src"
	cp "$source"/src/*.json "$source"/src/commands "$run/src" -r 2>/dev/null || true
	(cd "$run" && alone 3600 ./runtest --single "$2" --clients 1 --timeout 1200) >"$log" 2>&1 || status=$?
	sed -n "s/\x1b\[[0-9;]*m//g; s/^\[\(ok\|err\|exception\|ignore\|skip\)\]: \(.*[^ ]\)\$/\1 \2/p" "$log" |
		sed 's/ ([0-9]* ms)$//; s/ in tests\/.*\.tcl$//' |
		awk -v unit="$2" '{ how = $1; $1 = ""; gsub(/ /, "_"); print unit "/" $0, how }'
	echo "$2 ends with $status"
	rm -rf "$run"
}

mapfile -t units < <(cd "$source" && ./runtest --list-tests && sed -n 's/^--single \([^ ]*\).*/\1/p' runtest-moduleapi)
# Most of them wait most of the time.
jobs=4
compare "${units[@]}"
