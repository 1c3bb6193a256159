# Perl's core tests that an installed perl can run (source package perl): all of t/ but those of the source itself (porting),
# and those of extensions that make system calls, with the interpreter and the library of packages perl-base, perl-modules
# and libperl, as an ordinary user.
#
# Flags: the interpreter itself and what the tests start. --ignore-unresolved: Perl's function `syscall` takes any number;
# no filter but an empty one has room for it, so the calls that a script makes with it are refused unless --allow names them.
need gcc gcc libc6-dev
need ip iproute2
need /usr/share/perl/5.36/perl5db.pl perl
source_of perl "$WORK/source"
tree=$WORK/source
# ../lib of the tests is the library as it is installed; files that only the source has (tests, data) stay.
if [[ ! -e $tree/.merged ]]; then
	for folder in /usr/lib/x86_64-linux-gnu/perl-base /usr/lib/x86_64-linux-gnu/perl/5.36 /usr/share/perl/5.36; do
		cp -aL --remove-destination "$folder/." "$tree/lib"
	done
	touch "$tree/.merged"
fi
mapfile -t others < <(targets bash cat chmod cp date df dirname echo env expr false gcc grep hostname id kill less ls mkdir mkfifo more \
	mv nm ps pwd rm sed sh sleep sort stty tail touch tr true tty uname wc which)
mkdir -p "$WORK/original"
cp --remove-destination -L /usr/bin/perl "$WORK/original/perl"
patch_program "$WORK/original/perl" "$WORK/patched/perl" --exec-target self "${others[@]}" --ignore-unresolved

# Tests leave files in t/ and in the folder of the extension: each gets folders of its own; all else is linked.
unit() {
	local run log=$3 status=0 extension
	run=$(scratch "$1" "$2")
	ln -s "$tree"/* "$run" && rm "$run/t" && cp -al "$tree/t" "$run/t"
	extension=$(sed -n 's#^\.\./\([a-z]*/[^/]*\)/.*#\1#p' <<<"$2")
	if [[ $extension && $extension != lib/* ]]; then
		rm "$run/${extension%/*}" && mkdir "$run/${extension%/*}"
		ln -s "$tree/${extension%/*}"/* "$run/${extension%/*}" && rm "$run/$extension" && cp -a "$tree/$extension" "$run/$extension"
	fi
	cp "$WORK/$1/perl" "$run/t/perl" && ln -sf t/perl "$run/perl"
	chmod -R a+rwX "$run/t" "$run/$extension"
	(cd "$run/t" && LC_ALL=C PERL_TEST_MEMORY='' alone 600 "${as_user[@]}" ./perl -I../lib TEST -v "$2") >"$log" 2>&1 || status=$?
	export LC_ALL=C
	awk -v unit="$2" '/^(not )?ok( |$)/ {
		count++
		how = $1 == "not" ? "not ok" : "ok"
		number = $(how == "ok" ? 2 : 3)
		print unit "#" (number ~ /^[0-9]+$/ ? number : "unnumbered-" count), how ($0 ~ /# *TODO/ ? " TODO" : "")
	}' "$log"
	echo "$2 ends with $status$(sed -n 's/^1\.\.0 *# *\([Ss]kip.*\)/, \1/p;T;q' "$log")"
	rm -rf "$run"
}

extensions=(cpan/{Digest-MD5,Digest-SHA,File-Temp,IO-Socket-IP,IPC-Cmd,IPC-SysV,Socket,Sys-Syslog,Time-Piece}
	dist/{Data-Dumper,IO,PathTools,Storable,Thread-Queue,Time-HiRes,threads,threads-shared}
	ext/{DynaLoader,Errno,Fcntl,File-DosGlob,File-Find,File-Glob,FileCache,I18N-Langinfo,IPC-Open3,POSIX}
	ext/{PerlIO-encoding,PerlIO-scalar,PerlIO-via,SDBM_File,Sys-Hostname})
mapfile -t units < <(cd "$tree/t" && ls {base,cmd,comp,io,lib,mro,op,opbasic,perf,re,run,uni}/*.t ../lib/*.t
	for extension in "${extensions[@]}"; do compgen -G "../$extension/t/*.t" || true; done)
compare "${units[@]}"
