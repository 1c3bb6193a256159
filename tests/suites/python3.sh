# CPython's regression tests (package libpython3.11-testsuite) with interpreter and library of the same version (packages
# python3.11-minimal, libpython3.11-minimal and -stdlib), unpacked in a folder of their own.
#
# Flags: the interpreter itself, what the tests start, the extension modules of that library.
files_of "$WORK/tree" python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libpython3.11-testsuite
need ip iproute2
need gcc gcc libc6-dev
tree=$WORK/tree
# Python takes the library beside the folder of the interpreter: both sides are trees of the same shape.
for side in original patched; do
	mkdir -p "$WORK/$side/usr/bin"
	ln -sfn "$tree/usr/lib" "$WORK/$side/usr/lib"
	ln -sfn python3.11 "$WORK/$side/usr/bin/python3"
done
cp --remove-destination "$tree/usr/bin/python3.11" "$WORK/original/usr/bin/python3.11"
mapfile -t others < <(PATH=$PATH:/sbin targets arp bash cat dash echo env false gcc id ifconfig ip ldconfig ls netstat nm objdump openssl ps sh \
	sleep stty tput true tty uname)
patch_program "$tree/usr/bin/python3.11" "$WORK/patched/usr/bin/python3.11" --exec-target self "${others[@]}" \
	--dlopen "$tree/usr/lib/python3.11/lib-dynload/*.so"

unit() {
	local run log=$3 status=0
	run=$(scratch "$1" "$2") && mkdir "$run/tmp"
	(cd "$run/tmp" && export PYTHONDONTWRITEBYTECODE=1 HOME=$run TMPDIR=$run/tmp LANG=C.UTF-8 TERM=xterm &&
		alone 1800 "$WORK/$1/usr/bin/python3.11" -m test --timeout 600 --ignore '*VSOCK*' -v --junit-xml "$run/result.xml" "$2") >"$log" 2>&1 || status=$?
	# One line for each test that ran: class, method, and how it ended. A run that was cut off has only what it printed.
	"$WORK/original/usr/bin/python3.11" - "$2" "$run/result.xml" "$log" <<-'END' || true
		import os, re, sys, xml.etree.ElementTree as tree
		module, result, log = sys.argv[1:]
		if os.path.exists(result):
		    for case in tree.parse(result).iter("testcase"):
		        ended = sorted({child.tag for child in case} & {"error", "failure", "skipped"})
		        print(module + "/" + case.get("name").replace(" ", "_"), " ".join(ended) or "ok")
		else:
		    for name, ended in re.findall(r"^\w+ \(([\w.]+)\) \.\.\. (\w+)", open(log, errors="replace").read(), re.M):
		        print(module + "/" + name, {"FAIL": "failure", "ERROR": "error"}.get(ended, ended))
	END
	echo "$2 ends with $status"
	rm -rf "$run"
}

units=(test_array test_asyncio test_atexit test_base64 test_bdb test_builtin test_bz2 test_cmd_line test_cmd_line_script test_codecs
	test_compileall test_concurrent_futures test_contextlib test_copy test_crypt test_csv test_ctypes test_curses test_datetime
	test_dbm test_dbm_dumb test_dbm_gnu test_dbm_ndbm test_decimal test_devpoll test_dict test_distutils test_docxmlrpc test_dtrace
	test_eintr test_embed test_ensurepip test_epoll test_exceptions test_faulthandler test_fcntl test_file test_file_eintr test_filecmp
	test_fileinput test_fileio test_float test_fork1 test_format test_ftplib test_functools test_gc test_gdb test_generators
	test_genericpath test_getopt test_getpass test_gettext test_glob test_grp test_gzip test_hashlib test_heapq test_hmac
	test_httplib test_httpservers test_imaplib test_imp test_import test_importlib test_inspect test_io test_ioctl test_ipaddress
	test_json test_kqueue test_largefile test_launcher test_linecache test_locale test_logging test_long test_lzma test_mailbox
	test_marshal test_math test_memoryio test_memoryview test_mimetypes test_mmap test_multiprocessing_fork
	test_multiprocessing_forkserver test_multiprocessing_main_handling test_multiprocessing_spawn test_netrc test_nis test_nntplib
	test_ntpath test_openpty test_os test_ossaudiodev test_pathlib test_pdb test_pickle test_pipes test_pkgutil test_platform test_poll
	test_popen test_poplib test_posix test_posixpath test_pty test_pwd test_py_compile test_pydoc test_queue test_random test_re
	test_readline test_regrtest test_repl test_resource test_runpy test_sched test_script_helper test_select test_selectors test_set
	test_shelve test_shutil test_signal test_site test_smtpd test_smtplib test_socket test_socketserver test_spwd test_sqlite3 test_ssl
	test_stat test_statistics test_strptime test_struct test_subprocess test_support test_sys test_sysconfig test_syslog
	test_tarfile test_telnetlib test_tempfile test_thread test_threadedtempfile test_threading test_threading_local
	test_threadsignals test_time test_timeit test_timeout test_tools test_trace test_traceback test_tracemalloc test_unicode
	test_unittest test_urllib test_urllib2 test_urllib2_localnet test_urllibnet test_uuid test_venv test_wait3 test_wait4 test_warnings
	test_wave test_weakref test_webbrowser test_wsgiref test_xml_etree test_xml_etree_c test_xmlrpc test_zipapp test_zipfile
	test_zipimport test_zlib test_zoneinfo)
for name in "${units[@]}"; do
	[[ -e $tree/usr/lib/python3.11/test/$name.py || -d $tree/usr/lib/python3.11/test/$name ]] ||
		left_out "the package of tests does not have it" "$name"
done
left_out "waits for ever for its peer where /dev/vsock is there, with the original too" "test_socket's VSOCK*"
compare "${units[@]}"
