# nginx's own tests (the project's repository nginx-tests) on Debian's nginx.
need nginx nginx
need prove perl
tests=${NGINX_TESTS:-$WORK/nginx-tests}
if [[ ! -d $tests ]]; then
	need git git
	git clone --quiet --depth 1 https://github.com/nginx/nginx-tests "$tests" 2>"$WORK/clone.log" ||
		skip "the tests cannot be had (\$NGINX_TESTS names a copy): $(tail -n 1 "$WORK/clone.log")"
fi
patch_program "$(readlink -f /usr/sbin/nginx)" "$WORK/patched" --exec-target self

table() {
	# As an ordinary user: some tests change modes to refuse themselves.
	(cd "$tests" && TEST_NGINX_BINARY=$2 TEST_NGINX_LEAVE=0 timeout -k 5 3000 prove ${FILES:-.} </dev/null) >"$WORK/$1.log" 2>&1 || true
	sed -n 's#^\(\./\)\{0,1\}\([a-z0-9_]*\.t\) \.* #\2 #p' "$WORK/$1.log" | sed 's/[0-9.]* *wallclock.*//; s/ *$//; s/ /_/2g' | sort >"$WORK/$1.table"
}
table original /usr/sbin/nginx
table patched "$WORK/patched"
compare "$WORK/original.table" "$WORK/patched.table"
