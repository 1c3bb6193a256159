# Redis' own tests (runtest of Debian's source package) on Debian's redis-server.
need redis-server redis-server redis-tools
need tclsh tcl8.6
unpack redis "$WORK/source"
rm -rf "$WORK/patched" && mkdir -p "$WORK/patched"
patch_program "$(readlink -f /usr/bin/redis-server)" "$WORK/patched/redis-server" --exec-target self

table() {
	local tests=$WORK/tree-$1
	rm -rf "$tests" && cp -a "$WORK/source" "$tests"
	for program in server cli benchmark check-aof check-rdb; do cp -L "/usr/bin/redis-$program" "$tests/src/redis-$program"; done
	[[ $1 == original ]] || for program in server check-aof check-rdb; do cp "$WORK/patched/redis-server" "$tests/src/redis-$program"; done
	# Modules are built from source, and some tests need the exact version of the source.
	(cd "$tests" && ./runtest --clients 2 --timeout 300 --baseport "$2" --tags "-slow -large-memory -needs:debug" ${UNITS:-} </dev/null) \
		>"$WORK/$1.log" 2>&1 || say "$1: runtest ended with $?"
	sed -n 's/\x1b\[[0-9;]*m//g; s/^\[\(ok\|err\|exception\|ignore\|skip\)\]: \(.*[^ ]\) *\(([0-9]* ms)\)\{0,1\}$/\2 \1/p' "$WORK/$1.log" |
		sed 's/ ([0-9]* ms)//' | sort >"$WORK/$1.table"
}
table original 21000
table patched 25000
compare "$WORK/original.table" "$WORK/patched.table"
