//! What stands below the flags in `--help`: examples, and exit statuses where a command has its own.

/// Of commands that run a program.
macro_rules! traced_statuses {
    () => {
        "Exit status: that of the program, also if a signal has ended it; 126 or 127 if it cannot be executed or found; 125 if \
         it cannot be traced; 2 if the command line, or a file that it names, is wrong."
    };
}

pub(crate) const EXIT_STATUSES: &str = "Examples:
  chestnut analyze /usr/bin/curl          which system calls it can make
  chestnut explain /usr/bin/curl execve   why it can make this one
  chestnut-patch /usr/bin/curl ./curl     the same program, with a filter that refuses all others

Exit status: 0 done; 1 the program is refused, and why; 2 the command line is wrong, or a file cannot be read.";

pub(crate) const ANALYZE_HELP: &str = "Examples:
  chestnut analyze /usr/bin/curl
  chestnut analyze --json --root /srv/image usr/bin/curl >policy.json";

pub(crate) const EXPLAIN_HELP: &str = "Examples:
  chestnut explain /usr/bin/curl execve
  chestnut explain --all-paths-through getaddrinfo /usr/bin/curl
  chestnut explain --diff policy-of-last-week.json /usr/bin/curl";

pub(crate) const CHECK_HELP: &str = "Examples:
  chestnut check ./curl || chestnut-patch --repatch ./curl ./curl.new

Exit status: 0 the filter allows all that is needed now; 1 it does not, or the file is refused; 2 the command line is wrong, \
or a file cannot be read.";

pub(crate) const INSPECT_HELP: &str = "Examples:
  chestnut inspect ./curl
  chestnut inspect --json ./curl | jq .allowed";

pub(crate) const REPORT_HELP: &str = "Examples:
  chestnut report /usr/bin/curl -o curl.html
  chestnut report --table /usr/bin/*

Exit status: 0 done; 1 a program is refused, and why; 2 the command line is wrong, or a file cannot be read.";

pub(crate) const EXPORT_HELP: &str = "Examples:
  chestnut export --format docker /usr/bin/curl -o curl.json
  chestnut export --format systemd /usr/sbin/nginx >/etc/systemd/system/nginx.service.d/calls.conf";

pub(crate) const HARDEN_HELP: &str = "Examples:
  chestnut harden --root /srv/image --all --in-place
  chestnut harden --list programs --out hardened --report report

Exit status: 0 every program is patched, or was before; 1 some are refused, and which; 2 the command line, or a file that it \
names, is wrong.";

pub(crate) const TRACE_HELP: &str = concat!(
    "Examples:
  chestnut trace -- curl https://example.org/
  chestnut trace -o curl.trace --policy policy.json -- curl https://example.org/

",
    traced_statuses!()
);

pub(crate) const REFINE_HELP: &str = "Examples:
  chestnut refine policy.json *.trace
  chestnut refine policy.json *.trace --add -o policy-2.json";

pub(crate) const RUN_HELP: &str = concat!(
    "Examples:
  chestnut run --ask -- curl https://example.org/
  chestnut run --log --policy policy.json -- curl https://example.org/

",
    traced_statuses!()
);

pub(crate) const VIOLATION_HELP: &str = "Examples:
  journalctl -k | chestnut explain-violation
  chestnut explain-violation /var/log/audit/audit.log";
