# SQLite's own tests (Debian's source package): its test fixture is built, patched, and runs them; so does the shell.
unpack sqlite3 "$WORK/source"
need tclsh tcl8.6
need gcc gcc libc6-dev make
[[ -e /usr/include/tcl8.6/tcl.h ]] || install tcl8.6-dev
if [[ ! -e $WORK/source/testfixture ]]; then
	(cd "$WORK/source" && ./configure --with-tcl=/usr/lib/tcl8.6 && make -j"$(nproc)" testfixture sqlite3) >"$WORK/build.log" 2>&1 ||
		skip "the source does not build: $(tail -n 1 "$WORK/build.log")"
fi
fixture=$WORK/source/.libs/testfixture
[[ -e $fixture ]] || fixture=$WORK/source/testfixture
patch_program "$fixture" "$WORK/patched" --exec-target self
files=${FILES:-aggerror alter analyze attach autovacuum backup between bigfile blob boundary1 busy cache capi2 collate1 conflict corrupt crash
	createtab date delete descidx1 distinct e_fkey enc exclusive fallocate fkey1 fts3 func hook in index insert intpkey io
	join journal1 json101 lock lock2 malloc5 memdb misc1 mmap1 multiplex1 notify1 null pager1 permutations pragma quote rollback
	rowid savepoint select1 shared shell1 sort stat subquery superlock sync table temptable thread001 thread1 tokenize trans
	trigger1 types unique update vacuum view wal walbak walmode walshared where without_rowid1}

table() {
	local name
	mkdir -p "$WORK/run-$1"
	for name in $files; do
		[[ -e $WORK/source/test/$name.test ]] || continue
		(cd "$WORK/run-$1" && timeout -k 5 300 "$2" "$WORK/source/test/$name.test" 2>&1 </dev/null) >"$WORK/$1.$name.log" || true
		echo "$name $(sed -n 's/^\([0-9]* errors out of [0-9]* tests\).*/\1/p' "$WORK/$1.$name.log" | tail -n 1 | tr ' ' _)"
	done >"$WORK/$1.table"
}
table original "$fixture"
table patched "$WORK/patched"
compare "$WORK/original.table" "$WORK/patched.table"
