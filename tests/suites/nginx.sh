# nginx' own tests (https://github.com/nginx/nginx-tests, in no Debian package; $NGINX_TESTS names a copy that is there) on
# the server of package nginx with the modules of its module packages.
#
# Flags: a new binary (binary_upgrade.t) is the server itself; modules are those that nginx.conf loads. One of them is a
# Perl interpreter, whose function `syscall` takes any number: --ignore-unresolved says that no script uses it.
lib=/usr/lib/x86_64-linux-gnu
need /usr/sbin/nginx nginx
need $lib/libGeoIP.so.1 libgeoip1
need $lib/libgd.so.3 libgd3
need $lib/libxslt.so.1 libxslt1.1
need $lib/libperl.so.5.36 libperl5.36
tests=${NGINX_TESTS:-$WORK/tests}
if [[ ! -d $tests ]]; then
	need git git
	timeout 300 git clone --quiet --depth 1 https://github.com/nginx/nginx-tests "$tests" 2>"$WORK/clone.log" ||
		skip "the tests cannot be had (\$NGINX_TESTS names a copy): $(tail -n 1 "$WORK/clone.log")"
fi
need ip iproute2
files_of "$WORK/modules" libnginx-mod-{http-geoip,http-image-filter,http-perl,http-xslt-filter,mail,stream,stream-geoip}
files_of "$WORK/perl" lib{io-socket-ssl,net-ssleay,protocol-websocket,cache-memcached,string-crc32,gd}-perl
modules=$WORK/modules/usr/lib/nginx/modules
mkdir -p "$WORK/original"
cp --remove-destination -L /usr/sbin/nginx "$WORK/original/nginx"
# Where the tests look for the module's Perl part.
for side in original patched; do
	mkdir -p "$WORK/$side/src/http/modules"
	ln -sfn "$WORK/modules$lib/perl5/5.36" "$WORK/$side/src/http/modules/perl"
done
patch_program "$WORK/original/nginx" "$WORK/patched/nginx" --exec-target self --dlopen "$modules/*.so" \
	--dlopen "$WORK/modules$lib/perl5/5.36/auto/nginx/nginx.so" --ignore-unresolved

# Files that nginx makes below the tests' folders belong to an ordinary user, as some tests refuse themselves by modes.
unit() {
	local log=$3 status=0 folder
	folder=$(scratch "$1" "$2")
	(cd "$tests" && export TEST_NGINX_UNSAFE=1 TMPDIR=$folder TEST_NGINX_BINARY=$WORK/$1/nginx TEST_NGINX_MODULES=$modules \
		PERL5LIB=$WORK/perl/usr/share/perl5:$WORK/perl$lib/perl5/5.36 &&
		alone 300 "${as_user[@]}" perl -I lib "$2.t") >"$log" 2>&1 || status=$?
	sed -n 's/^\(ok\|not ok\) \([0-9]*\)\(.*# TODO\)\{0,1\}.*/\2 \1\3/p' "$log" |
		LC_ALL=C awk -v unit="$2" '{ n = $1; $1 = ""; sub(/ .*# TODO/, " TODO"); print unit "/" n $0 }'
	echo "$2 ends with $status$(sed -n 's/^1\.\.0 # \(SKIP.*\)/, \1/p' "$log")"
	rm -rf "$folder"
}

mapfile -t units < <(cd "$tests" && ls -- *.t | sed 's/\.t$//')
# Most of them wait most of the time.
jobs=4
compare "${units[@]}"
