# CPython's regression tests (package libpython3.11-testsuite): each module in a process of its own.
need python3.11 python3.11
[[ -d /usr/lib/python3.11/test/support && -e /usr/lib/python3.11/test/test_os.py ]] || install libpython3.11-testsuite
modules=${MODULES:-test_array test_asyncio test_atexit test_base64 test_bz2 test_capi test_cmd_line test_codecs test_copy
	test_csv test_ctypes test_curses test_datetime test_dbm test_decimal test_dict test_docxmlrpc test_epoll
	test_eintr test_exceptions test_faulthandler test_fcntl test_file test_fileinput test_float test_fork1 test_format
	test_ftplib test_functools test_gc test_genericpath test_getpass test_glob test_grp test_gzip test_hashlib test_heapq
	test_hmac test_httplib test_httpservers test_imaplib test_imp test_import test_importlib test_io test_ioctl test_ipaddress
	test_iter test_json test_kqueue test_largefile test_list test_locale test_logging test_long test_lzma test_mailbox
	test_math test_memoryview test_mimetypes test_mmap test_multiprocessing_fork test_netrc test_nis test_ntpath test_openpty
	test_os test_ossaudiodev test_pathlib test_pickle test_pipes test_pkgutil test_platform test_poll test_popen test_poplib
	test_posix test_posixpath test_pty test_pwd test_queue test_random test_re test_readline test_repl test_resource
	test_sched test_select test_selectors test_set test_shelve test_shutil test_signal test_site test_smtplib test_socket
	test_socketserver test_spwd test_sqlite3 test_ssl test_stat test_statistics test_str test_strptime test_struct
	test_subprocess test_sys test_sysconfig test_syslog test_tarfile test_tempfile test_termios test_thread test_threading
	test_threading_local test_time test_timeout test_traceback test_tty test_unicode test_unittest test_urllib
	test_urllib2 test_urllib2_localnet test_uuid test_wait3 test_wait4 test_wave test_weakref test_xml_etree test_xmlrpc
	test_zipfile test_zlib}
mkdir -p "$WORK/original" "$WORK/patched"
cp /usr/bin/python3.11 "$WORK/original/python3.11"
mapfile -t programs < <(targets bash cat dash echo false gcc gdb ls openssl sleep stty true uname)
patch_program /usr/bin/python3.11 "$WORK/patched/python3.11" --exec-target self "${programs[@]}"

# The last line of a run tells; what a module prints besides differs from run to run.
table() {
	local module result
	for module in $modules; do
		result=$(cd "$WORK" && PYTHONDONTWRITEBYTECODE=1 timeout -k 5 400 "$WORK/$1/python3.11" -m test --timeout 300 "$module" \
			2>&1 </dev/null | tee "$WORK/$1/$module.log" | sed -n 's/^Tests\{0,1\} result: //p' | tail -n 1)
		echo "$module ${result:-NONE}" | tr -s ' '
	done >"$WORK/$1.table"
}
table original &
table patched &
wait
compare "$WORK/original.table" "$WORK/patched.table"
