# GNU coreutils' own tests (Debian's source package), with Debian's programs, patched, in place of those that it builds.
unpack coreutils "$WORK/source"
need gcc gcc libc6-dev make
programs=${PROGRAMS:-basename cat chmod cksum comm cp cut date dd df dirname du echo env expand expr factor false fmt fold head id
	join link ln ls md5sum mkdir mkfifo mknod mktemp mv nl nohup nproc numfmt od paste pr printenv printf ptx pwd readlink realpath rm rmdir
	seq sha1sum sha256sum shred shuf sleep sort split stat stdbuf sum sync tac tail tee test timeout touch tr true truncate tsort tty uname
	unexpand uniq unlink wc}
if [[ ! -e $WORK/source/src/true ]]; then
	(cd "$WORK/source" && FORCE_UNSAFE_CONFIGURE=1 ./configure --disable-nls -q && make -j"$(nproc)") >"$WORK/build.log" 2>&1 ||
		skip "the source does not build: $(tail -n 1 "$WORK/build.log")"
fi
mapfile -t others < <(targets cat dash echo gzip ls sleep sort true)

table() {
	local name
	rm -rf "$WORK/tree-$1" && cp -a "$WORK/source" "$WORK/tree-$1"
	for name in $programs; do
		rm -f "$WORK/tree-$1/src/$name"
		if [[ $1 == original ]]; then cp -L "$(type -P "$name")" "$WORK/tree-$1/src/$name"
		else patch_program "$(readlink -f "$(type -P "$name")")" "$WORK/tree-$1/src/$name" --exec-target self "${others[@]}"; fi
	done
	(cd "$WORK/tree-$1" && touch -d 2030-01-01 src/* && RUN_EXPENSIVE_TESTS=no make check-TESTS TESTS="$(cd tests && ls misc/*.sh cp/*.sh mv/*.sh ls/*.sh rm/*.sh \
		tail-2/*.sh split/*.sh touch/*.sh mkdir/*.sh chmod/*.sh dd/*.sh du/*.sh ln/*.sh 2>/dev/null | sed 's#^#tests/#' | xargs)" \
		SUBDIRS=. -k VERBOSE=no) >"$WORK/$1.log" 2>&1 || true
	sed -n 's/^\(PASS\|FAIL\|SKIP\|ERROR\|XFAIL\): \(.*\)$/\2 \1/p' "$WORK/$1.log" | sort >"$WORK/$1.table"
}
table original
table patched
compare "$WORK/original.table" "$WORK/patched.table"
