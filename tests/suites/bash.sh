# Bash's own tests (Debian's source package), each with its expected output.
unpack bash "$WORK/source"
mapfile -t programs < <(targets bash cat chmod cp cut dash date diff echo env expr false grep id ls mkdir mktemp mv printf ps rm rmdir sed \
	seq sleep sort tail tee touch tr true tty uname wc which xargs)
patch_program /usr/bin/bash "$WORK/patched" --exec-target self "${programs[@]}"
need gcc gcc libc6-dev

table() {
	local tests=$WORK/tree-$1 name
	rm -rf "$tests" && cp -a "$WORK/source" "$tests"
	cd "$tests/tests"
	for helper in recho zecho printenv xcase; do gcc -w -o "$helper" "../support/$helper.c" 2>/dev/null || true; done
	for name in run-*; do
		case $name in run-all | run-minimal | *~ | *.orig | run-jobs | run-read) continue ;; esac
		BASH_TSTOUT=$WORK/$1.out TMPDIR=$WORK THIS_SH=$2 PATH=$PWD:$PATH timeout -k 5 120 sh "./$name" >"$WORK/$1.$name.log" 2>&1 </dev/null || true
		# What is printed are differences from the expected output.
		if [[ -s $WORK/$1.$name.log ]]; then echo "$name differs-$(sed "s#$2#SHELL#g; s/[0-9]\{3,\}/N/g" "$WORK/$1.$name.log" | md5sum | cut -c1-8)"; else echo "$name ok"; fi
	done >"$WORK/$1.table"
	cd "$WORK"
}
table original /usr/bin/bash
table patched "$WORK/patched"
compare "$WORK/original.table" "$WORK/patched.table"
