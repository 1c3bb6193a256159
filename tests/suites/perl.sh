# Perl's core tests that an installed perl can run (t/ of Debian's source package).
need perl perl
unpack perl "$WORK/source"
[[ -d /usr/lib/x86_64-linux-gnu/perl/5.36 ]] || install perl-modules-5.36 libperl5.36
mapfile -t programs < <(targets bash cat dash echo env ls sleep true uname)
mkdir -p "$WORK/patched" "$WORK/original"
cp -L /usr/bin/perl "$WORK/original/perl"
patch_program "$(readlink -f /usr/bin/perl)" "$WORK/patched/perl" --exec-target self "${programs[@]}"

table() {
	local file result tests=$WORK/tree-$1
	rm -rf "$tests" && mkdir -p "$tests" && cp -a "$WORK/source/t" "$tests/t"
	cp "$WORK/$1/perl" "$tests/perl"
	cd "$tests/t" && ln -sf ../perl perl
	for file in base/*.t cmd/*.t comp/*.t io/*.t op/*.t re/*.t; do
		result=$(PERL_CORE=1 timeout -k 5 120 ./perl -I/usr/share/perl/5.36 "$file" 2>"$WORK/$1.err" </dev/null |
			awk '/^ok/ { ok++ } /^not ok/ { no++ } END { printf "%d/%d", ok, no }'; echo "/${PIPESTATUS[0]}")
		echo "$file $result" | tr -d '\n'
		echo
	done >"$WORK/$1.table"
	cd "$WORK"
}
table original
table patched
compare "$WORK/original.table" "$WORK/patched.table"
