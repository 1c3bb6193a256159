# Bash's own tests (source package bash, tests/run-*) with the shell of package bash, as an ordinary user without terminal.
# Each compares what the shell prints with what is expected; differences from that are the result, and must be the same.
#
# Flags: the shell itself, the tests' own small programs and what the tests start by name.
need gcc gcc libc6-dev
need make make
need ip iproute2
source_of bash "$WORK/source"
tests=$WORK/source/tests
helpers=(recho zecho printenv xcase)
(cd "$WORK/source" && { [[ -e config.h ]] || ./configure -q; } && make "${helpers[@]}" && cp "${helpers[@]}" tests) \
	>"$WORK/build.log" 2>&1 ||
	skip "the tests' programs do not build: $(tail -n 1 "$WORK/build.log")"
mapfile -t others < <(targets awk cat chmod cp cut date diff echo egrep env expr false grep id kill ln locale ls mkdir mkfifo mktemp mv od \
	printenv printf ps rm rmdir sed seq sh sleep sort split tail tee test touch tr true tty uname wc)
mkdir -p "$WORK/original"
cp --remove-destination /usr/bin/bash "$WORK/original/bash"
patch_program "$WORK/original/bash" "$WORK/patched/bash" --exec-target self \
	--exec-target="$tests/"{recho,zecho,printenv,xcase} "${others[@]}"

unit() {
	local run log=$3 status=0
	run=$(scratch "$1" "$2") && cp -a "$tests" "$run/tests" && mkdir "$run/tmp" && chmod -R a+rwX "$run"
	cd "$run/tests"
	alone 200 "${as_user[@]}" env -i HOME="$run" USER=nobody LOGNAME=nobody TERM=xterm LANG=C BASH_TSTOUT="$run/out" TMPDIR="$run/tmp" \
		BUILD_DIR="$WORK/source" THIS_SH="$WORK/$1/bash" PATH="$run/tests:$PATH" sh "./$2" >"$log" 2>&1 || status=$?
	cd "$WORK" && rm -rf "$run"
	# Paths of the two sides and numbers of processes differ by nature.
	sed -i "/^warning: /d; s#$WORK/$1/#SIDE/#g; s#$run#RUN#g; s/[0-9]\{3,\}/N/g" "$log"
	if [[ $status == 0 && ! -s $log ]]; then echo "$2 as-expected"
	else echo "$2 not-as-expected: $(wc -l <"$log") lines, $(md5sum <"$log" | cut -c1-8), ends with $status"; fi
}

mapfile -t units < <(cd "$tests" && printf '%s\n' run-* | grep -Evx 'run-(all|minimal|gprof)|.*(~|\.orig)')
compare "${units[@]}"
