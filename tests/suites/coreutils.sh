# GNU coreutils' own tests (source package coreutils) with the programs of package coreutils in place of those that it builds,
# as an ordinary user, those of its list `all_root_tests` that mount nothing as root.
#
# Flags: programs that start others are told the other programs of the package and what else the tests start.
need gcc gcc libc6-dev
need make make
need ip iproute2
source_of coreutils "$WORK/source"
source=$WORK/source
if [[ ! -e $source/.built ]]; then
	say "building"
	(cd "$source" && FORCE_UNSAFE_CONFIGURE=1 ./configure --disable-nls -q && make -j"$(nproc)") >"$WORK/build.log" 2>&1 ||
		skip "the source does not build: $(tail -n 1 "$WORK/build.log")"
	touch "$source/.built"
fi
launchers=' chroot env install nice nohup runcon sort split stdbuf timeout '
mapfile -t programs < <(dpkg -L coreutils | sed -n 's#^\(/usr\)\{0,1\}/s\{0,1\}bin/##p' | while read -r name; do
	[[ ! -f $source/src/$name ]] || echo "$name"
done | sort -u)
path_of() { if [[ -e /usr/bin/$1 ]]; then readlink -f "/usr/bin/$1"; else readlink -f "/usr/sbin/$1"; fi; }

# What a launcher is told: the patched programs, the launchers, and what the tests have besides.
mkdir -p "$WORK/original" "$WORK/patched"
plain=() quiet=1
for name in "${programs[@]}"; do
	[[ $launchers != *" $name "* ]] || continue
	patch_program "$(path_of "$name")" "$WORK/patched/$name"
	plain+=(--exec-target "$WORK/patched/$name")
done
mapfile -t others < <(targets bash chroot dash env gawk grep gzip nice nohup sed sh sort split stdbuf strace strip timeout)
for name in "${programs[@]}"; do
	[[ $launchers != *" $name "* ]] || patch_program "$(path_of "$name")" "$WORK/patched/$name" --exec-target self "${plain[@]}" "${others[@]}"
	cp --remove-destination "$(path_of "$name")" "$WORK/original/$name"
done
say "patched ${#programs[@]} programs, flags: none; for$launchers--exec-target self and $((${#others[@]} + ${#plain[@]} / 2)) programs"

# Both sides have the built tree, with other programs in src/.
for side in original patched; do
	rm -rf "$WORK/tree-$side" && cp -a "$source" "$WORK/tree-$side"
	cp --remove-destination "$WORK/$side"/* "$WORK/tree-$side/src"
	cp -f /usr/libexec/coreutils/libstdbuf.so "$WORK/tree-$side/src"
	chmod -R a+rwX "$WORK/tree-$side"
done

# The harness of the source takes longer than most tests: what it sets is written down once for each side.
printf 'include Makefile\nwrite:\n\t$(file >$(OUT),$(TESTS_ENVIRONMENT))\n' >"$WORK/write.mk"
for side in original patched; do
	tree=$WORK/tree-$side
	make -C "$tree" -s -f "$WORK/write.mk" write OUT="$WORK/environment-$side" SHELL=/bin/sh MAKE=make \
		abs_top_builddir="$tree" abs_top_srcdir="$tree" abs_srcdir="$tree" abs_builddir="$tree" >"$WORK/build.log" 2>&1 ||
		fail "no environment for the tests: $(tail -n 1 "$WORK/build.log")"
done

unit() {
	local log=$3 status=0 as=("${as_user[@]}") with=/bin/sh
	[[ " ${as_root[*]} " != *" $2 "* ]] || as=()
	case $2 in
	*.pl) with="perl -w -I./tests -MCuSkip -MCoreutils -M'CuTmpdir qw(tests/$2)'" ;;
	*.xpl) with="perl -T -w -I./tests -MCuSkip -MCoreutils -M'CuTmpdir qw(tests/$2)'" ;;
	esac
	# Line feeds that make left are blanks, as they are to the shell that make starts; the last word is a redirection.
	(cd "$WORK/tree-$1" && export tst="tests/$2" f="tests/$2" RUN_EXPENSIVE_TESTS=no &&
		alone 600 "${as[@]}" /bin/sh -c "$(tr '\n' ' ' <"$WORK/environment-$1") $with tests/$2") >"$log" 2>&1 || status=$?
	case $status in
	0) echo "$2 PASS" ;;
	77) echo "$2 SKIP $(sed -n 's/.*skipped test: //p;T;q' "$log")" ;;
	*) echo "$2 FAIL" ;;
	esac
}

as_root=({chown/basic,cp/preserve-gid,cp/special-bits,id/setgid,install/install-C-root,ls/nameless-uid,misc/chroot-credentials}.sh
	{misc/truncate-owned-by-other,mv/sticky-to-xpart,rm/fail-2eperm,rm/no-give-up,touch/now-owned-by-other}.sh)
printf 'include Makefile\nlist-of-tests:\n\t@printf "%%s\\n" $(all_tests)\n' >"$WORK/list.mk"
mapfile -t units < <({ make -C "$source" -s -f "$WORK/list.mk" list-of-tests 2>"$WORK/list.log" | sed -n 's#^tests/##p'
	printf '%s\n' "${as_root[@]}"; } | sort -u)
((${#units[@]} > 100)) || fail "no list of tests"
# Valgrind runs in the process of the program, and its own calls are not among those that the program needs.
mapfile -t valgrind < <(cd "$source/tests" && grep -rl '^ *require_valgrind_' --include='*.sh' | sort)
left_out "runs the program in valgrind, whose own calls the program's filter refuses" "${valgrind[@]}"
compare "${units[@]}"
