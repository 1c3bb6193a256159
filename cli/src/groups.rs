//! System calls by what they are for, and those that an attacker wants most.
//!
//! Input: a call. Output: its group; what makes it dangerous, if anything does. The grouping is for readers: no decision
//! rests on it. A call that is in no group is in [`OTHER`].

use chestnut_analyzer::policy::Policy;
use chestnut_analyzer::syscall::SyscallNr;

/// Calls that belong together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    /// Names, a space between them.
    calls: &'static str,
}

/// The group of calls that are newer than this table.
const OTHER: Group = Group { name: "other", calls: "" };

/// All others. Groups with more of what an attacker wants come first.
const GROUPS: [Group; 14] = [
    Group { name: "programs", calls: "execve execveat uselib" },
    Group {
        name: "processes",
        calls: "fork vfork clone clone3 exit exit_group wait4 waitid getpid getppid gettid setpgid getpgid getpgrp setsid \
                getsid prctl arch_prctl personality pidfd_open times getrusage getrlimit setrlimit prlimit64 \
                set_tid_address acct ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp process_madvise \
                process_mrelease set_thread_area get_thread_area modify_ldt",
    },
    Group {
        name: "network",
        calls: "socket socketpair connect accept accept4 bind listen sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg \
                shutdown getsockname getpeername setsockopt getsockopt",
    },
    Group {
        name: "memory",
        calls: "mmap mprotect munmap brk mremap msync mincore madvise mlock mlock2 munlock mlockall munlockall \
                remap_file_pages mbind set_mempolicy get_mempolicy set_mempolicy_home_node migrate_pages move_pages \
                pkey_mprotect pkey_alloc pkey_free memfd_create memfd_secret userfaultfd membarrier map_shadow_stack mseal",
    },
    Group {
        name: "files",
        calls: "read write pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 open openat openat2 creat close \
                close_range lseek stat fstat lstat newfstatat statx access faccessat faccessat2 dup dup2 dup3 fcntl flock \
                ioctl fsync fdatasync sync syncfs sync_file_range truncate ftruncate fallocate fadvise64 readahead sendfile \
                splice tee vmsplice copy_file_range getdents getdents64 getcwd chdir fchdir rename renameat renameat2 mkdir \
                mkdirat rmdir link linkat unlink unlinkat symlink symlinkat readlink readlinkat chmod fchmod fchmodat \
                fchmodat2 chown fchown lchown fchownat umask utime utimes futimesat utimensat mknod mknodat setxattr \
                lsetxattr fsetxattr setxattrat getxattr lgetxattr fgetxattr getxattrat listxattr llistxattr flistxattr \
                listxattrat removexattr lremovexattr fremovexattr removexattrat statfs fstatfs ustat inotify_init \
                inotify_init1 inotify_add_watch inotify_rm_watch fanotify_init fanotify_mark name_to_handle_at \
                open_by_handle_at lookup_dcookie cachestat file_getattr file_setattr",
    },
    Group {
        name: "file systems",
        calls: "mount umount2 pivot_root chroot move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick \
                mount_setattr statmount listmount sysfs quotactl quotactl_fd swapon swapoff nfsservctl",
    },
    Group {
        name: "users and rights",
        calls: "getuid getgid geteuid getegid setuid setgid setreuid setregid getgroups setgroups setresuid getresuid \
                setresgid getresgid setfsuid setfsgid capget capset seccomp landlock_create_ruleset landlock_add_rule \
                landlock_restrict_self lsm_get_self_attr lsm_set_self_attr lsm_list_modules add_key request_key keyctl \
                unshare setns",
    },
    Group {
        name: "signals",
        calls: "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_tgsigqueueinfo \
                rt_sigsuspend sigaltstack pause kill tkill tgkill pidfd_send_signal signalfd signalfd4 restart_syscall",
    },
    Group {
        name: "waiting for events",
        calls: "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 \
                epoll_ctl_old epoll_wait_old eventfd eventfd2 io_setup io_destroy io_getevents io_pgetevents io_submit \
                io_cancel io_uring_setup io_uring_enter io_uring_register",
    },
    Group {
        name: "between processes",
        calls: "pipe pipe2 shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl mq_open \
                mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr",
    },
    Group {
        name: "threads and scheduling",
        calls: "futex futex_waitv futex_wake futex_wait futex_requeue set_robust_list get_robust_list rseq sched_yield \
                sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max \
                sched_get_priority_min sched_rr_get_interval sched_setaffinity sched_getaffinity sched_setattr \
                sched_getattr getpriority setpriority ioprio_set ioprio_get getcpu",
    },
    Group {
        name: "time",
        calls: "time gettimeofday settimeofday nanosleep clock_gettime clock_settime clock_getres clock_nanosleep \
                clock_adjtime adjtimex alarm getitimer setitimer timer_create timer_settime timer_gettime timer_getoverrun \
                timer_delete timerfd_create timerfd_settime timerfd_gettime",
    },
    Group {
        name: "the kernel",
        calls: "init_module finit_module delete_module create_module query_module get_kernel_syms kexec_load \
                kexec_file_load reboot bpf perf_event_open iopl ioperm syslog sethostname setdomainname vhangup _sysctl \
                uprobe uretprobe",
    },
    Group {
        name: "information, and calls that do nothing",
        calls: "uname sysinfo getrandom getpmsg putpmsg afs_syscall tuxcall security vserver",
    },
];

/// What an attacker does with a call; those that belong together, a space between them. Worst first.
const DANGEROUS: [(&str, &str); 14] = [
    ("execve execveat", "starts another program, as a shell"),
    ("ptrace process_vm_writev process_vm_readv pidfd_getfd", "reads and changes other processes"),
    ("mprotect pkey_mprotect", "makes memory that was written executable"),
    ("memfd_create", "holds a program that is on no disk"),
    ("init_module finit_module kexec_load kexec_file_load", "replaces code of the kernel"),
    ("bpf perf_event_open userfaultfd", "is a part of many attacks on the kernel"),
    ("io_uring_setup io_uring_enter io_uring_register", "makes calls that no filter sees"),
    (
        "mount umount2 pivot_root chroot move_mount open_tree fsopen open_by_handle_at",
        "changes or leaves the tree of files",
    ),
    ("unshare setns", "gets rights in a new namespace"),
    (
        "setuid setgid setreuid setregid setresuid setresgid setgroups capset",
        "changes the user that the process acts for",
    ),
    ("socket connect bind accept accept4", "talks to other machines"),
    ("fork vfork clone clone3", "starts processes"),
    ("add_key request_key keyctl", "reaches the kernel's keys, where many errors were"),
    ("iopl ioperm modify_ldt", "reaches the machine past the kernel"),
];

/// A group with those of its calls that a policy allows, and those that it does not.
#[derive(Debug)]
pub(crate) struct Split {
    pub(crate) name: &'static str,
    pub(crate) allowed: Vec<SyscallNr>,
    pub(crate) blocked: Vec<SyscallNr>,
}

/// The group of a call.
pub(crate) fn name_of(call: SyscallNr) -> &'static str {
    let name = call.name().unwrap_or_default();
    GROUPS.iter().find(|group| group.calls.split_whitespace().any(|one| one == name)).unwrap_or(&OTHER).name
}

/// All calls that are known, by group; empty groups are left out.
pub(crate) fn split(policy: &Policy) -> Vec<Split> {
    let mut splits: Vec<Split> = GROUPS
        .iter()
        .chain([&OTHER])
        .map(|group| Split { name: group.name, allowed: Vec::new(), blocked: Vec::new() })
        .collect();
    let unknown = policy.allowed.keys().copied().filter(|call| call.name().is_none());
    for call in SyscallNr::all_known().chain(unknown) {
        let name = name_of(call);
        if let Some(split) = splits.iter_mut().find(|split| split.name == name) {
            let list = if policy.allowed.contains_key(&call) { &mut split.allowed } else { &mut split.blocked };
            list.push(call);
        }
    }
    splits.retain(|split| !split.allowed.is_empty() || !split.blocked.is_empty());
    splits
}

/// The dangerous calls with what they do, worst first.
pub(crate) fn dangerous() -> impl Iterator<Item = (SyscallNr, &'static str)> {
    DANGEROUS
        .iter()
        .flat_map(|(names, why)| names.split_whitespace().map(move |name| (name, *why)))
        .filter_map(|(name, why)| SyscallNr::from_name(name).map(|call| (call, why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_in_one_group_and_every_name_is_a_call() {
        let mut names: Vec<&str> = GROUPS.iter().flat_map(|group| group.calls.split_whitespace()).collect();
        names.sort_unstable();
        let number = names.len();
        names.dedup();
        assert_eq!(names.len(), number, "a name stands in two groups");
        let missing: Vec<_> = SyscallNr::all_known().filter(|call| name_of(*call) == OTHER.name).collect();
        assert!(missing.is_empty(), "{missing:?}");
        let wrong: Vec<_> = names.iter().filter(|name| SyscallNr::from_name(name).is_none()).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn dangerous_names_are_calls() {
        let names = DANGEROUS.iter().flat_map(|(names, _)| names.split_whitespace()).count();
        assert_eq!(dangerous().count(), names);
    }
}
