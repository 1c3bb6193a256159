# SQLite's own tests (source package sqlite3): its test fixture, a Tcl interpreter with the library in it, is built, patched
# and, as an ordinary user, runs every file of the permutation `veryquick` and those on crashes and threads that this one leaves out.
#
# Flags: the fixture runs itself, the shell and a few programs through Tcl's exec; loadext.test compiles and loads an
# extension, so the compiler is told and a library of the same source.
source_of sqlite3 "$WORK/source"
need tclsh tcl8.6
need gcc gcc libc6-dev
need make make
need /usr/include/tcl8.6/tcl.h tcl8.6-dev
source=$WORK/source
if [[ ! -e $source/.built ]]; then
	say "building"
	(cd "$source" && ./configure --with-tcl=/usr/lib/tcl8.6 --disable-shared && make -j"$(nproc)" testfixture sqlite3) >"$WORK/build.log" 2>&1 ||
		skip "the source does not build: $(tail -n 1 "$WORK/build.log")"
	touch "$source/.built"
fi
# The programs of both sides stand in folders of the same shape: tests look for the shell beside the fixture.
mkdir -p "$WORK/original" "$WORK/patched"
cp --remove-destination "$source/testfixture" "$source/sqlite3" "$WORK/original"
patch_program "$source/sqlite3" "$WORK/patched/sqlite3"
mapfile -t programs < <(targets cat cp diff echo ls sh)
patch_program "$source/testfixture" "$WORK/patched/testfixture" --exec-target self --exec-target "$WORK/patched/sqlite3" "${programs[@]}"

unit() {
	local run log=$3 status=0
	run=$(scratch "$1" "$2") && cd "$run"
	cp "$WORK/$1/sqlite3" .
	timeout -k 5 600 "${as_user[@]}" "$WORK/$1/testfixture" "$source/$2.test" >"$log" 2>&1 || status=$?
	# "! NAME expected: [...]", then the summary.
	sed -n 's/^! \([^ ]*\) expected:.*/\1 failed/p' "$log"
	sed -n 's/^\.*\([^ .][^ ]*\)\.\.\. Ok$/\1 ok/p' "$log"
	echo "$2 ends with $status$(grep -q '^[0-9]* errors out of' "$log" || echo ', no summary')"
	cd "$WORK" && rm -rf "$run"
}

cat >"$WORK/names.tcl" <<END
set argv0 $source/test/names.test
source $source/test/permutations.test
foreach file [lsort [dict get \$::testspec(veryquick) -files]] { puts "NAME \$file" }
END
mkdir -p "$WORK/run" && cd "$WORK/run"
"$WORK/original/testfixture" "$WORK/names.tcl" >"$WORK/names" 2>&1 || true
mapfile -t units < <(sed -n "s#^NAME \([^/]*\)\.test\$#test/\1#p; s#^NAME $source/test/../\(.*\)\.test\$#\1#p" "$WORK/names")
((${#units[@]} > 500)) || fail "no list of tests: $(head -n 1 "$WORK/names")"
compare "${units[@]}" test/{crash,crash2,crash3,crash8,loadext,notify2,thread00{1,2,3,4,5},walcrash,walthread}
